"""Rows by number: where each line of a file begins, so that any row can be read without the others.

Knows lines, not what they say; 16 bytes of memory a line, 28 where lines are found by a key.
Invariant: a file that has changed since it was scanned is not read on.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from model_store.training.data.rows import MAX_LINE_BYTES, DataError, Example, parse_row


class Lines(Sequence[bytes]):
    """The lines of a file that are not blank, by number from 0. May be shared by threads, forked,
    and pickled."""

    def __init__(self, path: Path, visit: Callable[[bytes, int], None] | None = None) -> None:
        """Scan `path` once, and show `visit` each line and its number in the file.

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

    def _scan(
        self, readline: Callable[[int], bytes], visit: Callable[[bytes, int], None] | None
    ) -> None:
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

    def __getitem__(self, place: int) -> bytes:  # type: ignore[override]  # one line, never a slice
        return self.numbered(place)[1]

    def numbered(self, place: int) -> tuple[int, bytes]:
        """(line number in the file, from 1; the line); raises `DataError` where the file has
        changed."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        start, end = self._starts[place], self._starts[place + 1]
        try:
            # opened anew each time: nothing to share between processes, nothing to leak
            file = os.open(self.path, os.O_RDONLY)
            try:
                if _state(file) != self._state:
                    raise DataError(f"{self.path}: the file has changed since it was first read.")
                return self._numbers[place], os.pread(file, end - start, start).split(b"\n", 1)[0]
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(f"{self.path}: the file cannot be read ({error.strerror}).") from None


class Examples(Sequence[Example]):
    """The examples of a `.jsonl` file by number from 0, for a sampler that shuffles and resumes."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, place: int) -> Example:  # type: ignore[override]
        number, line = self._lines.numbered(place)
        return parse_row(line, self._lines.path, number)


class KeyedLines:
    """The lines of a file by a key that each of them states; of equal keys, the first line
    counts."""

    def __init__(self, path: Path, key_of: Callable[[bytes, int], str]) -> None:
        """`key_of(line, line number)` may raise `DataError`."""
        found = array("Q")
        self.lines, self._key_of = (
            Lines(path, lambda line, number: found.append(_hash(key_of(line, number)))),
            key_of,
        )
        hashes = np.frombuffer(found, np.uint64)
        self._order = np.argsort(hashes, kind="stable").astype(
            np.uint32 if len(hashes) < 2**32 else np.uint64
        )
        self._hashes = hashes[self._order]

    def find(self, key: str) -> tuple[int, bytes] | None:
        """(line number, line) of the first line with this key."""
        wanted = np.uint64(_hash(key))
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            number, line = self.lines.numbered(int(self._order[at]))
            if self._key_of(line, number) == key:
                return number, line
            at += 1
        return None


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def _state(file: int) -> tuple[int, int, int]:
    status = os.fstat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns
