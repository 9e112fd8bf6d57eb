"""The protocol of a retriever over one corpus.

Depends on no library. Invariant: a retriever returns its candidates best first, and gives a pair
the score that it has in a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from model_store.retrieval.embedder import Query
from model_store.retrieval.found import Found
from model_store.training.data.rows import Example, Side


class Retriever(Protocol):
    """Finds documents of one corpus."""

    described: dict[str, Any]
    """Settings and versions that decide its results beside the corpus, as JSON."""
    bin_width: float
    """Width of a bin in histograms of its scores."""

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """At most `most` candidates for each query; raises `DataError` for a query it cannot
        read."""
        ...

    def score(self, query: Query, sides: Sequence[Side]) -> list[float | None]:
        """Each side's score for the query, on the scale of `search`; None for one that it cannot
        score."""
        ...

    def score_documents(self, query: Query, numbers: Sequence[int]) -> list[float | None]:
        """The same for documents of the corpus, by their numbers; None for one that a search would
        not find."""
        ...


class NoRetriever:
    """Finds and scores no document: for random negatives alone, of any corpus."""

    bin_width = 1.0

    def __init__(self) -> None:
        self.described: dict[str, Any] = {"retriever": "none"}

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """No candidate for any query."""
        return [Found(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]

    def score(self, query: Query, sides: Sequence[Side]) -> list[float | None]:
        """No score for any side."""
        return [None] * len(sides)

    def score_documents(self, query: Query, numbers: Sequence[int]) -> list[float | None]:
        """No score for any document."""
        return [None] * len(numbers)


def query_of(example: Example) -> Query:
    """The query of an example."""
    return Query(example.instruction, example.query, example.location)
