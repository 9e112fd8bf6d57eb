"""Doubts by a retriever: negatives that it scores above every positive of their row.

Depends on a scorer, not on a model. Rows are given at once: BM25 weighs words by all their
documents. Invariant: a row counts only where the retriever can read its query and a positive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from model_store.retrieval.embedder import Embedder, Query
from model_store.training.data.doubts.doubt import SHOWN, Doubt, Place
from model_store.training.data.rows import Example

Rows = Sequence[tuple[int, Example]]
Progress = Callable[[int], None]


class Scorer(Protocol):
    """Scores the documents of a row; None for one that it cannot read."""

    name: str

    def scores(self, number: int) -> list[float | None] | None:
        """Scores of the positives and then the negatives of a row by its number among the given
        ones; None where the query cannot be read, or says nothing about the positives."""
        ...


class VectorScorer:
    """Inner products of an embedder's vectors, row by row."""

    def __init__(self, rows: Rows, embedder: Embedder, name: str) -> None:
        self.name, self._rows, self._embedder = name, rows, embedder

    def scores(self, number: int) -> list[float | None] | None:
        """As `Scorer.scores`; raises `DataError`."""
        _, example = self._rows[number]
        query = Query(example.instruction, example.query, example.location)
        sides = example.documents
        vectors = self._embedder.documents(sides, [example.location] * len(sides))
        products = vectors @ self._embedder.queries([query])[0]
        return [float(score) for score in np.asarray(products)]


def score_doubts(rows: Rows, scorer: Scorer, progress: Progress) -> Iterator[Doubt]:
    """A doubt where a scorer puts negatives above positives; raises `DataError`."""
    places: list[tuple[float, Place]] = []
    judged = 0
    for number, (line, example) in enumerate(rows):
        progress(1)
        scores = scorer.scores(number) if example.negatives else None
        if scores is None:
            continue
        count = len(example.positives)
        known = [score for score in scores[:count] if score is not None]
        if not known:
            continue

        judged += 1
        best = max(known)
        above = _above(scores[count:], best)
        if above:
            index = max(above, key=lambda at: above[at])
            remark = f"{above[index]:.2f}, and the best positive {best:.2f}"
            gap = (above[index] - best) / max(abs(above[index]), abs(best))
            places.append((-gap, Place(line, f"negatives[{index}]", remark)))

    if not places:
        return
    places.sort(key=lambda pair: (pair[0], pair[1].line))
    yield Doubt(
        "scored-above",
        f"{scorer.name} scores negatives above every positive of their row: some of them may be"
        " relevant, too (the widest differences come first; `gmr mine --margin` leaves them out).",
        len(places),
        "row",
        judged,
        tuple(place for _, place in places[:SHOWN]),
    )


def _above(scores: Sequence[float | None], best: float) -> dict[int, float]:
    """Numbers and scores of the negatives above the best positive."""
    above: dict[int, float] = {}
    for index, score in enumerate(scores):
        if score is not None and score > best:
            above[index] = score
    return above
