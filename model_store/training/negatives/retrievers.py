"""The protocols of a retriever, and of a model that turns sides into vectors.

Depends on no library of either. Invariant: a retriever returns its candidates best first, and gives
a pair the score that it has in a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model_store.training.data.rows import Example, Side

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Query:
    """A query for a search; `location` is `file:line` of its row."""

    instruction: str | None
    side: Side
    location: str


@dataclass(frozen=True, slots=True)
class Found:
    """A query's candidates, best first: numbers of documents in the corpus, and scores.

    Equal scores are in the order of their numbers.
    """

    numbers: npt.NDArray[np.int64]
    scores: Vectors


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


class Embedder(Protocol):
    """Turns sides into vectors of length 1, whose inner product is the score."""

    described: dict[str, Any]
    """Settings and versions that decide its vectors, as JSON."""
    dimensions: int

    def queries(self, queries: Sequence[Query]) -> Vectors:
        """`[queries, dimensions]`; raises `DataError` for a query it cannot read."""
        ...

    def documents(self, sides: Sequence[Side], locations: Sequence[str]) -> Vectors:
        """`[sides, dimensions]`; raises `DataError`, which names the location of a side that it
        cannot read."""
        ...


def query_of(example: Example) -> Query:
    """The query of an example."""
    return Query(example.instruction, example.query, example.location)


def in_order(numbers: npt.NDArray[np.int64], scores: Vectors) -> Found:
    """Candidates by falling score, and by number where scores are equal."""
    order = np.lexsort((numbers, -scores))
    return Found(numbers[order], scores[order])
