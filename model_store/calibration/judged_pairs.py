"""Judged pairs as arrays: raw scores, judgements, queries and weights.

Depends on numpy alone. Invariant: all arrays have one entry a pair, and the pairs of a class have
one weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


MAX_PAIRS = 5_000_000

Judged = tuple[Sequence[float], Sequence[bool]]
"""The raw scores of a query's documents, and whether each is relevant."""


@dataclass(frozen=True, slots=True)
class JudgedPairs:
    """Pairs of one instruction; `queries` numbers the query of each from 0, without gaps."""

    scores: Floats
    relevant: Bools
    queries: Integers
    weights: Floats

    @property
    def count_queries(self) -> int:
        """The number of queries."""
        return int(self.queries.max()) + 1 if len(self.queries) else 0

    @property
    def relevant_share(self) -> float:
        """The share of relevant pairs, by weight."""
        return float(np.average(self.relevant, weights=self.weights))

    @property
    def odds_ratio(self) -> float:
        """The weight of a relevant pair, in weights of an irrelevant one; both classes must have
        pairs."""
        return float(self.weights[self.relevant][0] / self.weights[~self.relevant][0])

    def chosen(self, which: Bools) -> JudgedPairs:
        """Some of the pairs; queries and weights keep their values."""
        return JudgedPairs(
            self.scores[which], self.relevant[which], self.queries[which], self.weights[which]
        )


def judged_pairs(queries: Sequence[Judged], relevant_share: float | None = None) -> JudgedPairs:
    """The pairs of queries, each given as raw scores and judgements of its documents.

    With `relevant_share`, the pairs of each class are weighted so that relevant ones have this
    share; both classes must have pairs.
    """
    scores = np.concatenate([np.asarray(each, np.float64) for each, _ in queries])
    relevant = np.concatenate([np.asarray(each, np.bool_) for _, each in queries])
    numbers = np.repeat(np.arange(len(queries)), [len(each) for each, _ in queries])

    weights = np.ones(len(scores))
    if relevant_share is not None:
        share = relevant.mean()
        weights = np.where(relevant, relevant_share / share, (1 - relevant_share) / (1 - share))
    return JudgedPairs(scores, relevant, numbers.astype(np.int64), weights)
