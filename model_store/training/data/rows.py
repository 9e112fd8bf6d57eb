"""Training data: one JSON object a line, a query with its relevant and irrelevant sides; streamed,
and checked row by row.

Knows the row's form and its bounds; opens no image and knows no model. Invariant: an `Example` has
a query and at least one positive, no side of it is empty, and every image path lies inside the
folder of the file that names it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

import msgspec

from model_store.training.data.decoding import decode

MAX_LINE_BYTES = 2**24
MAX_TEXT_CHARS = 100_000
"""What the service takes in one item: an example it would refuse teaches nothing that is asked of
it."""
MAX_INSTRUCTION_CHARS = 10_000
MAX_ID_CHARS = 256
MAX_PATH_CHARS = 1_024
MAX_SIDES = 1_000
"""Of positives, and of negatives, in one row."""

Kind = Literal["hard", "random"]


class DataError(Exception):
    """Training data that cannot be used; its text is one sentence that begins with file and
    line."""


class WrongUsage(DataError):
    """A command that was given options which do not fit together; its text is one sentence that
    names them."""


@dataclass(frozen=True, slots=True)
class Side:
    """A query or a document: text, an image file, or both; never neither. The image comes before
    the text."""

    text: str | None
    image: Path | None


def modality_of(side: Side) -> str:
    """`"text"`, `"image"` or `"image,text"`, as M-BEIR spells them."""
    if side.image is None:
        return "text"
    return "image" if side.text is None else "image,text"


@dataclass(frozen=True, slots=True)
class Negative:
    """An irrelevant document, and how it was found (paper, appendix C.3)."""

    side: Side
    kind: Kind


@dataclass(frozen=True, slots=True)
class Example:
    """One query and its documents. `place` is `file:line`; `id` is the row's own, or else the
    file's name and the line."""

    id: str
    instruction: str | None
    query: Side
    positives: tuple[Side, ...]
    negatives: tuple[Negative, ...]
    place: str


class _SideRow(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    image: str | None = None


class _NegativeRow(_SideRow, forbid_unknown_fields=True):
    kind: Kind = "hard"


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    query: _SideRow | str
    positives: list[_SideRow | str]
    negatives: list[_NegativeRow | str] = []
    instruction: str | None = None
    id: str | None = None


_decoder = msgspec.json.Decoder(_Row)
_FIELDS = {
    "": ("query", "positives", "negatives", "instruction", "id"),
    "query": ("text", "image"),
    "positives": ("text", "image"),
    "negatives": ("text", "image", "kind"),
    "kind": ("hard", "random"),
}


def read_examples(path: Path) -> Iterator[Example]:
    """The rows of a `.jsonl` or `.jsonl.gz` file, one after the other; memory does not grow with
    the file.

    Raises `DataError` at the first row that is wrong, or where the file cannot be read.
    """
    for number, line in read_lines(path):
        yield parse_row(line, path, number)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of every line that is not blank; raises `DataError`."""
    number = 0
    try:
        with open_packed(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(
                        f"{path}:{number}: the line is longer than {MAX_LINE_BYTES} bytes."
                    )
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path}:{number + 1}: the gzip file is cut off or damaged.") from None
    except OSError as error:
        raise DataError(
            f"{path}:{number + 1}: the file cannot be read ({error.strerror})."
        ) from None


@contextmanager
def open_packed(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked where its name ends in `.gz`."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield cast(IO[bytes], file)


def parse_row(line: bytes, path: Path, number: int) -> Example:
    """One line of `path` as an example; raises `DataError`, which names file and line."""
    place = f"{path}:{number}"
    try:
        row = decode(_decoder, line, place, _FIELDS)
    except ValueError as error:
        raise DataError(str(error)) from None
    try:
        return Example(
            id=_bounded(row.id or f"{path.name}:{number}", "id", MAX_ID_CHARS),
            instruction=(
                _bounded(row.instruction, "instruction", MAX_INSTRUCTION_CHARS)
                if row.instruction
                else None
            ),
            query=_side(row.query, "query", path.parent),
            positives=_sides(row.positives, path.parent),
            negatives=_negatives(row.negatives, path.parent),
            place=place,
        )
    except ValueError as error:
        raise DataError(f"{place}: {error}.") from None


def _sides(rows: list[_SideRow | str], folder: Path) -> tuple[Side, ...]:
    if not 1 <= len(rows) <= MAX_SIDES:
        raise ValueError(f"there are {len(rows)} positives, and there must be 1 to {MAX_SIDES}")
    return tuple(_side(row, f"positives[{place}]", folder) for place, row in enumerate(rows))


def _negatives(rows: list[_NegativeRow | str], folder: Path) -> tuple[Negative, ...]:
    if len(rows) > MAX_SIDES:
        raise ValueError(f"there are {len(rows)} negatives, and there may be at most {MAX_SIDES}")
    return tuple(
        Negative(
            _side(row, f"negatives[{place}]", folder), "hard" if isinstance(row, str) else row.kind
        )
        for place, row in enumerate(rows)
    )


def _side(row: _SideRow | str, name: str, folder: Path) -> Side:
    text, image = (row, None) if isinstance(row, str) else (row.text, row.image)
    return side_of(text, image, name, folder)


def side_of(text: str | None, image: str | None, name: str, folder: Path) -> Side:
    """A side of a row of a file in `folder`; a text of spaces alone is none. Raises `ValueError`,
    which says `name`."""
    if text is None or not text.strip():
        text = None
    if text is None and not image:
        raise ValueError(f"{name} is empty: it needs a text or an image")
    if text is not None:
        _bounded(text, f"{name}.text", MAX_TEXT_CHARS)
    return Side(text, folder / inside(image, f"{name}.image") if image else None)


def inside(image: str, name: str) -> str:
    """An image's path if it is a plain relative one that cannot lead out of its folder; raises
    `ValueError` that says `name`."""
    _bounded(image, name, MAX_PATH_CHARS)
    parts = PurePosixPath(image).parts
    if image.startswith("/") or ".." in parts or not parts or "\\" in image or ":" in parts[0]:
        raise ValueError(
            f"{name} must be a path inside the file's folder, relative and without '..'"
        )
    return image


def check_names(example: Example) -> None:
    """Raise `ValueError` where the example's id or instruction is not one that a row may have."""
    _bounded(example.id, "id", MAX_ID_CHARS)
    _bounded(example.instruction or "", "instruction", MAX_INSTRUCTION_CHARS)


def _bounded(text: str, name: str, most: int) -> str:
    if len(text) > most:
        raise ValueError(f"{name} has {len(text)} characters, and {most} are allowed")
    if "\0" in text:
        raise ValueError(f"{name} has a NUL character")
    return text
