"""Rows by number: the offset of each line of a file, so that any row is read without the others.

Does not depend on what a line holds. Memory is 16 bytes a line, and 28 where lines are found by a
key. Invariant: a file that has changed since it was scanned is not read any more.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from model_store.training.data.rows import MAX_LINE_BYTES, DataError, Example, parse_row

Visit = Callable[[bytes, int], None]
"""Called with a line and its number in the file, from 1."""


class Lines(Sequence[bytes]):
    """The lines of a file that are not blank, by index from 0.

    Threads may share it; it can be forked and pickled.
    """

    def __init__(self, path: Path, visit: Visit | None = None) -> None:
        """Scan `path` once, and call `visit` for each line.

        Raises `DataError` for a packed file, an overlong line, and a file that cannot be read.
        """
        if path.suffix == ".gz":
            raise DataError(
                f"{path}: rows of a packed file cannot be read out of order; unpack it first."
            )
        self.path = path
        self._starts, self._numbers = array("Q"), array("Q")
        try:
            with path.open("rb") as file:
                self._state = _state(file.fileno())
                self._scan(file.readline, visit)
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read ({error.strerror}).") from None

    def _scan(self, readline: Callable[[int], bytes], visit: Visit | None) -> None:
        start = number = 0
        while line := readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"{self.path}:{number}: the line is longer than {MAX_LINE_BYTES} bytes."
                )

            if line.strip():
                self._starts.append(start)
                self._numbers.append(number)
                if visit is not None:
                    visit(line, number)
            start += len(line)
        self._starts.append(start)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # one line, never a slice
        _, line = self.numbered(index)
        return line

    def numbered(self, index: int) -> tuple[int, bytes]:
        """The line's number in the file, from 1, and the line; raises `DataError` where the file
        has changed."""
        if not 0 <= index < len(self):
            raise IndexError(index)

        start, end = self._starts[index], self._starts[index + 1]
        try:
            # Opened anew each time: processes share nothing, and no file stays open.
            file = os.open(self.path, os.O_RDONLY)
            try:
                if _state(file) != self._state:
                    raise DataError(f"{self.path}: the file has changed since it was first read.")
                content = os.pread(file, end - start, start)
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(f"{self.path}: the file cannot be read ({error.strerror}).") from None
        return self._numbers[index], content.split(b"\n", 1)[0]


class Examples(Sequence[Example]):
    """The examples of a `.jsonl` file by index from 0, for a sampler that shuffles and resumes."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        number, line = self._lines.numbered(index)
        return parse_row(line, self._lines.path, number)


class KeyedLines:
    """The lines of a file by a key that each of them has; of lines with equal keys, the first is
    found."""

    def __init__(self, path: Path, key_of: Callable[[bytes, int], str]) -> None:
        """`key_of(line, number)` may raise `DataError`."""
        hashes = array("Q")

        def add_hash(line: bytes, number: int) -> None:
            hashes.append(_hash(key_of(line, number)))

        self.lines = Lines(path, add_hash)
        self._key_of = key_of
        by_line = np.frombuffer(hashes, np.uint64)
        index_type = np.uint32 if len(by_line) < 2**32 else np.uint64
        self._order = np.argsort(by_line, kind="stable").astype(index_type)
        self._hashes = by_line[self._order]

    def find(self, key: str) -> tuple[int, bytes] | None:
        """The number and the content of the first line with this key."""
        hashed = np.uint64(_hash(key))
        position = int(np.searchsorted(self._hashes, hashed))
        while position < len(self._hashes) and self._hashes[position] == hashed:
            number, line = self.lines.numbered(int(self._order[position]))
            if self._key_of(line, number) == key:
                return number, line
            position += 1
        return None


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def _state(file: int) -> tuple[int, int, int]:
    status = os.fstat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns
