"""Rows of a source: JSON lines and parquet.

Does not depend on layouts. Invariant: a row that is not one object is one bad row; a file that
cannot be read to its end stops the conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import pyarrow
import pyarrow.parquet

from model_store.errors import DataError
from model_store.training.data.converters.outcomes import BadRow
from model_store.training.data.decoding import Fields, decode, explain
from model_store.training.data.rows import read_lines

_BATCH_ROWS = 16

Row = TypeVar("Row")
Layout = TypeVar("Layout", bound=msgspec.Struct)


class Record(NamedTuple):
    """A row as a file has it: its `file:line`, and the line of JSON or the row of parquet."""

    location: str
    content: bytes | dict[str, Any]


def find_files(path: Path) -> list[Path]:
    """A file, or the parquet and JSON lines files of a folder in order; raises `DataError`."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"{path}: it does not exist.")

    found = sorted(file for file in path.rglob("*") if is_records(file))
    if not found:
        raise DataError(f"{path}: there are no .parquet, .jsonl or .jsonl.gz files.")
    return found


def is_records(path: Path) -> bool:
    """True for a file named as parquet or JSON lines."""
    return path.suffix == ".parquet" or path.name.endswith((".jsonl", ".jsonl.gz"))


def read_records(files: Iterable[Path]) -> Iterator[Record]:
    """Every row of the files, in order; raises `DataError` where a file cannot be read."""
    for path in files:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
        else:
            for number, line in read_lines(path):
                yield Record(f"{path}:{number}", line)


def _read_parquet(path: Path) -> Iterator[Record]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(f"{path}:{number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path}:{number + 1}: the parquet file cannot be read ({type(error).__name__})."
        ) from None


def read_row(record: Record) -> dict[str, Any]:
    """The row of a record, whatever its fields; raises `BadRow`."""
    if isinstance(record.content, dict):
        return record.content
    return _decode(_any_row, record.content, record.location, {})


_any_row: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class RecordReader(Generic[Layout]):
    """Records as rows of one layout; an unknown field is refused."""

    def __init__(self, layout: type[Layout], fields: Fields) -> None:
        """`layout` is a `msgspec.Struct`, and `fields` its names for messages."""
        self._layout, self._fields = layout, fields
        self._decoder = msgspec.json.Decoder(layout)

    def read(self, record: Record) -> Layout:
        """The row of a record; raises `BadRow`."""
        location, content = record
        if isinstance(content, bytes):
            return _decode(self._decoder, content, location, self._fields)
        try:
            return msgspec.convert(content, self._layout)
        except msgspec.ValidationError as error:
            raise BadRow(f"{location}: {explain(str(error), self._fields)}") from None


def _decode(decoder: msgspec.json.Decoder[Row], line: bytes, location: str, fields: Fields) -> Row:
    try:
        return decode(decoder, line, location, fields)
    except ValueError as error:
        raise BadRow(str(error)) from None
