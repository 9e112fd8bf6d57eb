"""Ids by number and numbers by id, for millions of documents.

Does not depend on what has the ids. Memory is 20 bytes an id and its own UTF-8. Invariant: every id
is there once.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np

MAX_ID_CHARS = 512
"""The bound of an id in the results of an evaluation."""


class DuplicateId(Exception):
    """An id that occurs twice, by the numbers of its first and its second occurrence."""

    def __init__(self, item_id: str, first: int, second: int) -> None:
        super().__init__(item_id)
        self.item_id, self.first, self.second = item_id, first, second


class Ids(Sequence[str]):
    """The ids of a list, by number from 0. Threads may share it; it can be forked and pickled."""

    def __init__(self, content: bytes, ends: array[int], hashes: array[int]) -> None:
        """`content` is all ids in UTF-8 without separators, `ends` their ends in it.

        Raises `DuplicateId` for the first id that occurs twice.
        """
        self._content, self._ends = content, ends
        by_number = np.frombuffer(hashes, np.uint64)
        index_type = np.uint32 if len(by_number) < 2**32 else np.uint64
        self._order = np.argsort(by_number, kind="stable").astype(index_type)
        self._hashes = by_number[self._order]
        self._refuse_duplicates()

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # one id, never a slice
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return self._content[start : self._ends[index]].decode()

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self.find(item_id) is not None

    def find(self, item_id: str) -> int | None:
        """The number of an id; None where it is not there."""
        hashed = np.uint64(_hash(item_id.encode("utf-8", "surrogatepass")))
        position = int(np.searchsorted(self._hashes, hashed))
        while position < len(self._hashes) and self._hashes[position] == hashed:
            number = int(self._order[position])
            if self[number] == item_id:
                return number
            position += 1
        return None

    @property
    def digest(self) -> str:
        """The SHA-256 of all ids in their order, in hexadecimal."""
        return hashlib.sha256(self._ends.tobytes() + self._content).hexdigest()

    def _refuse_duplicates(self) -> None:
        """Ids with equal hashes lie side by side, and in their own order."""
        found: DuplicateId | None = None
        for position in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]):
            second = int(self._order[position + 1])
            if found is not None and second > found.second:
                continue
            first = self.find(self[second])
            if first is not None and first != second:
                found = DuplicateId(self[second], first, second)
        if found is not None:
            raise found


class IdsBuilder:
    """Collects ids in their order."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._ends, self._hashes = array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, item_id: str) -> None:
        """Append an id."""
        encoded = item_id.encode()
        self._content += encoded
        self._ends.append(len(self._content))
        self._hashes.append(_hash(encoded))

    def build(self) -> Ids:
        """All ids; raises `DuplicateId`."""
        return Ids(bytes(self._content), self._ends, self._hashes)


def _hash(encoded: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")
