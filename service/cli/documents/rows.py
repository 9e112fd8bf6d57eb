"""Rows as documents: lines of text, JSON lines, and tables with a header.

Does not depend on HTTP. Invariant: a row that cannot be read is refused with its line, before
anything is sent; bytes of one input, and of one of its lines, have a bound.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from service.cli.documents.items import Document, Unusable
from service.cli.documents.pictures import is_picture_name

RowFormat = Literal["text", "jsonl", "csv", "tsv"]
MAX_INPUT_BYTES = 2**30
MAX_LINE_BYTES = 64 * 2**20
_MAX_CELL_CHARS = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields of rows that are a document's text and its id; None for an item's own fields."""

    text: str | None = None
    identifier: str | None = None


def line_rows(stream: BinaryIO, name: str) -> Iterator[Document]:
    """A document for each line that is not blank."""
    for number, line in _lines(stream, name):
        text = line.strip()
        if text:
            yield Document(f"{name}, line {number}", {"text": text})


def json_rows(stream: BinaryIO, name: str, folder: Path, columns: Columns) -> Iterator[Document]:
    """A document for each line of JSON: a string, or an object with the fields of an item.

    An `image` that is the name of a file is that file, relative to `folder`.
    """
    for number, line in _lines(stream, name):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            row = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Unusable(f"{place} is not JSON.") from None
        if isinstance(row, str) and columns.text is None:
            yield Document(place, row)
        elif isinstance(row, dict):
            yield _of_object(row, place, folder, columns)
        else:
            raise Unusable(f"{place} is neither a JSON object nor a string.")


def csv_rows(
    stream: BinaryIO, name: str, columns: Columns, *, delimiter: str
) -> Iterator[Document]:
    """A document for each row of a table whose first row names its columns."""
    csv.field_size_limit(_MAX_CELL_CHARS)
    reader = csv.reader(
        (line for _, line in _lines(stream, name)), delimiter=delimiter, strict=True
    )
    try:
        header = next(reader, [])
        text_at, id_at = _positions(header, columns, name)
        for cells in reader:
            if not cells:
                continue
            place = f"{name}, line {reader.line_num}"
            if len(cells) != len(header):
                raise Unusable(f"{place} has {len(cells)} cells; the header has {len(header)}.")
            fields = {"text": cells[text_at]}
            if id_at is not None:
                fields["id"] = cells[id_at]
            yield Document(fields.get("id") or place, fields)
    except csv.Error:
        raise Unusable(f"{name}, line {reader.line_num} is not well-formed CSV.") from None


def _positions(header: list[str], columns: Columns, name: str) -> tuple[int, int | None]:
    """The positions of the columns of texts and ids."""
    if not header:
        raise Unusable(f"{name} is empty: a table begins with the names of its columns.")
    if columns.text is None:
        raise Unusable(f"{name}: name the column of texts with --column; {_those(header)}.")

    positions: list[int | None] = []
    for column in (columns.text, columns.identifier):
        if column is not None and column not in header:
            raise Unusable(f"{name} has no column {column!r}; {_those(header)}.")
        positions.append(None if column is None else header.index(column))
    text_at, id_at = positions
    assert text_at is not None
    return text_at, id_at


def _of_object(row: dict[str, Any], place: str, folder: Path, columns: Columns) -> Document:
    fields = row
    if columns.text is not None:
        fields = {"text": _field(row, columns.text, place)}
    if columns.identifier is not None:
        fields = {**fields, "id": _field(row, columns.identifier, place)}

    name = str(fields["id"])[:80] if isinstance(fields.get("id"), str | int) else place
    image = fields.get("image")
    if isinstance(image, str) and _is_file_name(image):
        rest = {key: value for key, value in fields.items() if key != "image"}
        return Document(name, rest, folder / image)
    return Document(name, fields)


def _no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's JSON has and no other."""
    raise ValueError(name)


def _field(row: dict[str, Any], field: str, place: str) -> Any:
    if field not in row:
        raise Unusable(f"{place} has no field {field!r}; {_those(list(row))}.")
    return row[field]


def _is_file_name(image: str) -> bool:
    """True if an image is the name of a file: base64 has no dots, and a URL has a scheme."""
    return "://" not in image and not image.startswith("data:") and is_picture_name(image)


def _those(names: list[str]) -> str:
    listed = ", ".join(name[:64] for name in names[:20]) or "none"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"there are {listed}{more}"


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, within the bounds. Raises `Unusable`."""
    total = 0
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), 1):
        total += len(line)
        if len(line) > MAX_LINE_BYTES:
            raise Unusable(f"{name}, line {number} is longer than 64 MiB.")
        if total > MAX_INPUT_BYTES:
            raise Unusable(f"{name} is larger than 1 GiB: rank it in parts, or with `gmr bulk`.")
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise Unusable(f"{name}, line {number} is not UTF-8 text.") from None
