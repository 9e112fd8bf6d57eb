"""Which documents answer which query, as judgement files say.

Knows names, no files. Invariant: what is held in memory has a bound, whatever the file says.
"""

from __future__ import annotations

from model_store.training.data.rows import DataError

MAX_JUDGEMENTS = 20_000_000
"""About 4 GB. MS MARCO's training set has half a million."""


class Judgements:
    """Relevant documents by query, in the order in which they were named."""

    def __init__(self) -> None:
        self._relevant: dict[str, list[str]] = {}
        self._count = 0

    def add(self, query: str, document: str, place: str) -> None:
        """Hold that `document` answers `query`; raises `DataError` naming `place` beyond
        `MAX_JUDGEMENTS`."""
        self._count += 1
        if self._count > MAX_JUDGEMENTS:
            raise DataError(
                f"{place}: there are more than {MAX_JUDGEMENTS:,} judgements; convert the file in"
                " parts."
            )
        self._relevant.setdefault(query, []).append(document)

    def of(self, query: str) -> tuple[str, ...]:
        """The documents that answer a query; none for one that was not judged."""
        return tuple(self._relevant.get(query, ()))
