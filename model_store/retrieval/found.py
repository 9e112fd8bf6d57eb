"""The candidates of a query: numbers of documents and their scores, in one order.

Depends on numpy alone. Invariant: candidates are ordered by falling score, and by number where
scores are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """A query's candidates, best first: numbers of documents in the corpus, and scores.

    Equal scores are in the order of their numbers.
    """

    numbers: Numbers
    scores: Vectors


def in_order(numbers: Numbers, scores: Vectors) -> Found:
    """Candidates by falling score, and by number where scores are equal."""
    order = np.lexsort((numbers, -scores))
    return Found(numbers[order], scores[order])


def best(numbers: Numbers, scores: Vectors, most: int) -> Found:
    """The best `most` of some documents, in order."""
    if len(numbers) > most:
        least = np.partition(scores, -most)[-most]
        kept = scores >= least  # more than `most` where scores are equal
        numbers, scores = numbers[kept], scores[kept]
    found = in_order(numbers, scores)
    return Found(found.numbers[:most], found.scores[:most])
