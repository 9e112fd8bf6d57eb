"""Shards of a run: each query belongs to one, by a hash of its dataset and its id.

Does not depend on the order or the number of queries. Invariant: a query's shard is the same on
every machine and in every version of Python.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `index` of `count`, counted from 0."""

    index: int = 0
    count: int = 1

    def has(self, dataset: str, query: str) -> bool:
        """True if a query is of this shard."""
        return stable_hash(dataset, query) % self.count == self.index


def stable_hash(dataset: str, query: str) -> int:
    """A number of 64 bits for a query of a dataset."""
    digest = hashlib.sha256(f"{dataset}\0{query}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8])
