"""Relevance judgements: the relevant documents of each query.

Does not depend on files. Invariant: their number in memory is bounded.
"""

from __future__ import annotations

from model_store.errors import DataError

MAX_JUDGEMENTS = 20_000_000
"""About 4 GB of memory. MS MARCO's training set has half a million."""


class Judgements:
    """Relevant documents by query, in the order of the file."""

    def __init__(self, limit: int = MAX_JUDGEMENTS) -> None:
        self._relevant: dict[str, list[str]] = {}
        self._count, self._limit = 0, limit

    def add(self, query: str, document: str, location: str) -> None:
        """Add a relevant document; raises `DataError` with `location` beyond the limit."""
        self._count += 1
        if self._count > self._limit:
            raise DataError(
                f"{location}: there are more than {self._limit:,} judgements; convert the file"
                " in parts."
            )
        self._relevant.setdefault(query, []).append(document)

    def documents(self, query: str) -> tuple[str, ...]:
        """The relevant documents of a query; none for one that was not judged."""
        return tuple(self._relevant.get(query, ()))
