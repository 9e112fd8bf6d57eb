"""Rows of a JSON Lines or Parquet file, in parts of a bounded number of rows.

Does not depend on the fields of rows. Invariant: a part's rows are the same however often it is
read, and in whatever order; a line that is no JSON object is a row without fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from model_store.errors import DataError, WrongUsage
from model_store.files import sha256

JSON_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIX = ".parquet"
MAX_LINE_BYTES = 256 * 2**20
"""Bytes of one row of JSON; a service has a bound of its own below it."""

Row = dict[str, Any]


class Source(Protocol):
    """A file of rows; `part_rows` has the number of rows of each part."""

    path: Path
    digest: str
    part_rows: list[int]

    def part(self, number: int) -> Iterator[Row | None]:
        """The rows of a part; None for one that is no JSON object."""
        ...


def open_source(path: Path, rows_per_part: int) -> Source:
    """The rows of a file by its suffix; raises `WrongUsage` for another suffix, `DataError` for a
    file that cannot be read, and `OSError`."""
    if path.suffix in JSON_SUFFIXES:
        return _JsonLines(path, rows_per_part)
    if path.suffix == PARQUET_SUFFIX:
        return _Parquet(path, rows_per_part)
    raise WrongUsage(f"{path}: rows are read from .jsonl and .parquet files.")


class _JsonLines:
    """A row a line; blank lines are none."""

    def __init__(self, path: Path, rows_per_part: int) -> None:
        self.path = path
        self.part_rows: list[int] = []
        self._starts: list[int] = []

        digest = hashlib.sha256()
        rows = position = 0
        with path.open("rb") as file:
            for line in _lines(path, file):
                digest.update(line)
                if line.strip():
                    if rows % rows_per_part == 0:
                        self._starts.append(position)
                        self.part_rows.append(0)
                    self.part_rows[-1] += 1
                    rows += 1
                position += len(line)
        self.digest = digest.hexdigest()

    def part(self, number: int) -> Iterator[Row | None]:
        left = self.part_rows[number]
        with self.path.open("rb") as file:
            file.seek(self._starts[number])
            for line in _lines(self.path, file):
                if not line.strip():
                    continue
                yield _decoded(line)
                left -= 1
                if not left:
                    return


class _Parquet:
    """Row groups are read one batch at a time."""

    def __init__(self, path: Path, rows_per_part: int) -> None:
        import pyarrow
        import pyarrow.parquet

        self.path = path
        self.digest = sha256(path)
        self.part_rows: list[int] = []
        self._rows_per_part = rows_per_part
        self._places: list[tuple[int, int]] = []
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowInvalid:
            raise DataError(f"{path}: it is no Parquet file.") from None

        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            for batch, start in enumerate(range(0, rows, rows_per_part)):
                self._places.append((group, batch))
                self.part_rows.append(min(rows_per_part, rows - start))
        self._next: tuple[int, int] | None = None
        self._batches: Iterator[Any] = iter(())

    def part(self, number: int) -> Iterator[Row | None]:
        yield from self._batch(number).to_pylist()

    def _batch(self, number: int) -> Any:
        """The rows of a part as a `pyarrow.RecordBatch`."""
        group, batch = self._places[number]
        if self._next != (group, batch):
            self._batches = self._file.iter_batches(self._rows_per_part, row_groups=[group])
            for _ in range(batch):
                next(self._batches)
        self._next = (group, batch + 1)
        return next(self._batches)


def _lines(path: Path, file: Any) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{path}: a line is longer than {MAX_LINE_BYTES // 2**20} MiB.")
        yield line


def _decoded(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
