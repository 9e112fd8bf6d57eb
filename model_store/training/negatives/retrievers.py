"""What mining asks of a retriever, and of a model that turns sides into vectors.

Knows no library. Invariant: a retriever gives its candidates best first, and scores a pair as it
does in a search.
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
    """What is searched for; `place` is `file:line`."""

    instruction: str | None
    side: Side
    place: str


@dataclass(frozen=True, slots=True)
class Found:
    """A query's candidates: places in the corpus, and scores, best first. Equal scores are in the
    order of their places."""

    places: npt.NDArray[np.int64]
    scores: Vectors


class Retriever(Protocol):
    """Finds documents of one corpus."""

    described: dict[str, Any]
    """What decides its results beside the corpus, as JSON."""
    bin_width: float
    """Of a histogram of its scores."""

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """At most `most` candidates for each query; raises `DataError` for a query it cannot
        read."""
        ...

    def score(self, query: Query, sides: Sequence[Side]) -> list[float | None]:
        """Each side's score for the query, on the scale of `search`; None for one that it cannot
        score."""
        ...

    def score_documents(self, query: Query, places: Sequence[int]) -> list[float | None]:
        """The same for documents of the corpus, by their places; None for one that it would not
        find."""
        ...


class NoRetriever:
    """Finds nothing and scores nothing: for random negatives alone, of any corpus."""

    bin_width = 1.0

    def __init__(self) -> None:
        self.described: dict[str, Any] = {"retriever": "none"}

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """No candidate for any query."""
        return [Found(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]

    def score(self, query: Query, sides: Sequence[Side]) -> list[float | None]:
        """No score for any side."""
        return [None] * len(sides)

    def score_documents(self, query: Query, places: Sequence[int]) -> list[float | None]:
        """No score for any document."""
        return [None] * len(places)


class Embedder(Protocol):
    """Turns sides into vectors of length 1, whose inner product is the score."""

    described: dict[str, Any]
    dimensions: int

    def queries(self, queries: Sequence[Query]) -> Vectors:
        """`[queries, dimensions]`; raises `DataError` for a query it cannot read."""
        ...

    def documents(self, sides: Sequence[Side], places: Sequence[str]) -> Vectors:
        """`[sides, dimensions]`; raises `DataError`, which says the side's place, for one it cannot
        read."""
        ...


def query_of(example: Example) -> Query:
    """What an example asks."""
    return Query(example.instruction, example.query, example.location)


def in_order(places: npt.NDArray[np.int64], scores: Vectors) -> Found:
    """Candidates sorted by score, the best first, and by place where scores are equal."""
    order = np.lexsort((places, -scores))
    return Found(places[order], scores[order])
