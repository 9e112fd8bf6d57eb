"""Rows of a file by number and by key, so that any row is read without the others.

Depends on lines, and on rows where they are examples. Memory is 16 bytes a line, and 28 where lines
are found by a key. Invariant: a file that has changed since it was scanned is not read any more.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from model_store.errors import DataError
from model_store.lines import Lines
from model_store.training.data.rows import Example, parse_row


class Examples(Sequence[Example]):
    """The examples of a `.jsonl` file by index from 0, for a sampler that shuffles and resumes."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path, DataError)

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

        self.lines = Lines(path, DataError, add_hash)
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
