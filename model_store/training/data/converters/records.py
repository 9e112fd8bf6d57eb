"""Rows of a source as they come: JSON lines and parquet.

Knows both forms, no layout. Invariant: a row that is not one object costs itself alone; a file that
cannot be read on ends the reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import pyarrow
import pyarrow.parquet

from model_store.training.data.converters.outcomes import BadRow
from model_store.training.data.decoding import Fields, decode, in_words
from model_store.training.data.rows import DataError, read_lines

_BATCH = 16

Record = tuple[str, bytes | dict[str, Any]]
"""`file:line`, and the line or the row that is there."""
Row = TypeVar("Row")
Layout = TypeVar("Layout", bound=msgspec.Struct)


def files_of(place: Path) -> list[Path]:
    """The parquet or JSON lines files of a folder, or that one file, in order; raises
    `DataError`."""
    if place.is_file():
        return [place]
    if not place.exists():
        raise DataError(f"{place}: it does not exist.")
    found = sorted(path for path in place.rglob("*") if is_records(path))
    if not found:
        raise DataError(f"{place}: there are no .parquet, .jsonl or .jsonl.gz files.")
    return found


def is_records(path: Path) -> bool:
    """Whether a file's name is that of parquet or JSON lines."""
    return path.suffix == ".parquet" or path.name.endswith((".jsonl", ".jsonl.gz"))


def read_records(files: Iterable[Path]) -> Iterator[Record]:
    """Every row of the files, in order; raises `DataError` where a file cannot be read."""
    for path in files:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        else:
            for number, line in read_lines(path):
                yield f"{path}:{number}", line


def _parquet(path: Path) -> Iterator[Record]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path}:{number + 1}: the parquet file cannot be read ({type(error).__name__})."
        ) from None


def row_of(record: Record) -> dict[str, Any]:
    """The row of a record, whatever its fields; raises `BadRow`."""
    place, row = record
    return row if isinstance(row, dict) else _decoded(_rows, row, place, {})


_rows: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class Reader(Generic[Layout]):
    """Records as rows of one layout, which refuses fields that it does not know."""

    def __init__(self, layout: type[Layout], fields: Fields) -> None:
        """`fields` are what a message may name; `layout` is a `msgspec.Struct`."""
        self._layout, self._fields = layout, fields
        self._decoder = msgspec.json.Decoder(layout)

    def read(self, record: Record) -> Layout:
        """The row of a record; raises `BadRow`, which says the record's place."""
        place, row = record
        if isinstance(row, bytes):
            return _decoded(self._decoder, row, place, self._fields)
        try:
            return msgspec.convert(row, self._layout)
        except msgspec.ValidationError as error:
            raise BadRow(f"{place}: {in_words(str(error), self._fields)}") from None


def _decoded(decoder: msgspec.json.Decoder[Row], line: bytes, place: str, fields: Fields) -> Row:
    try:
        return decode(decoder, line, place, fields)
    except ValueError as error:
        raise BadRow(str(error)) from None
