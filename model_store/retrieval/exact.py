"""Exact search over the vectors of a corpus, part by part.

Depends on numbers alone. Memory is that of one part, and of the scores of the queries for it.
Invariant: the candidates are those of all inner products, of equal ones the first documents.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from model_store.retrieval.found import Found, Vectors, best


def search_exactly(parts: Iterable[Vectors], queries: Vectors, most: int) -> list[Found]:
    """The best `most` documents for each row of `queries`, `[queries, dimensions]`.

    Each part is `[documents, dimensions]`; the numbers of documents go on from part to part.
    """
    nothing = Found(np.empty(0, np.int64), np.empty(0, np.float32))
    found = [nothing] * len(queries)
    floor = np.full(len(queries), -np.inf, np.float32)
    first = 0
    for part in parts:
        scores: Vectors = queries @ part.T
        # an equal score of a later document is not among the best
        better = scores > floor[:, None]
        for row in np.flatnonzero(better.any(axis=1)).tolist():
            numbers = np.flatnonzero(better[row])
            merged = best(
                np.concatenate([found[row].numbers, numbers + first]),
                np.concatenate([found[row].scores, scores[row, numbers]]),
                most,
            )
            found[row] = merged
            if len(merged.numbers) == most:
                floor[row] = merged.scores[-1]
        first += len(part)
    return found
