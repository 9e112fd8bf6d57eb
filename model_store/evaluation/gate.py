"""The gate of a promotion: a paired bootstrap over the queries of one benchmark finds whether a
candidate is worse than the promoted version.

Does not depend on models or a registry. Invariant: equal results give an equal verdict, and values
of different queries are never compared.

The interval is the percentile interval of Efron and Tibshirani (1993, chapter 13) for the
difference of two means on the same queries. Queries are resampled within each dataset, since a
benchmark's score is the mean of its datasets' means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_store.evaluation.results import Results, ResultsUnusable

RESAMPLES = 10_000
LEVEL = 0.95
MIN_QUERIES = 20
_DRAWS_AT_ONCE = 2**22
"""Draws in memory at a time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The candidate's score minus the promoted one's, with its interval."""

    benchmark: str
    metric: str
    queries: int
    promoted: float
    candidate: float
    difference: float
    low: float
    high: float

    @property
    def worse(self) -> bool:
        """True if the whole interval is below zero, so that the choice of queries does not explain
        the difference."""
        return self.high < 0

    def sentence(self) -> str:
        """The verdict as a sentence."""
        if self.worse:
            comparison = "worse than"
        elif self.low > 0:
            comparison = "better than"
        else:
            comparison = "not worse than"

        return (
            f"The candidate is {comparison} the promoted version on {self.benchmark}: {self.metric}"
            f" {self.candidate:.4f} against {self.promoted:.4f}, difference {self.difference:+.4f},"
            f" 95 % interval [{self.low:+.4f}, {self.high:+.4f}] over {self.queries} queries."
        )


def compare(
    candidate: Results, promoted: Results, *, resamples: int = RESAMPLES, seed: int = 0
) -> Verdict:
    """The paired bootstrap of two results.

    Raises `ResultsUnusable` where they are not of the same queries, or of fewer than
    `MIN_QUERIES`.
    """
    if (candidate.benchmark, candidate.metric) != (promoted.benchmark, promoted.metric):
        raise ResultsUnusable(
            f"{candidate.benchmark} ({candidate.metric}) cannot be compared with"
            f" {promoted.benchmark} ({promoted.metric})."
        )
    differences = _differences(candidate, promoted)
    queries = sum(map(len, differences))
    if queries < MIN_QUERIES:
        raise ResultsUnusable(
            f"{queries} queries are too few to compare on: {MIN_QUERIES} are needed."
        )

    means = bootstrap(differences, resamples=resamples, seed=seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    difference = float(np.mean([values.mean() for values in differences]))
    return Verdict(
        candidate.benchmark,
        candidate.metric,
        queries,
        promoted.score,
        candidate.score,
        difference,
        float(low),
        float(high),
    )


def bootstrap(
    datasets: list[npt.NDArray[np.float64]], *, resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """Resampled scores, `[resamples]`: the mean over datasets of the mean of as many values as the
    dataset has, drawn with replacement."""
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for values in datasets:
        rows = max(1, _DRAWS_AT_ONCE // len(values))
        for start in range(0, resamples, rows):
            count = min(rows, resamples - start)
            drawn = values[rng.integers(len(values), size=(count, len(values)))]
            total[start : start + count] += drawn.mean(axis=1)
    return total / len(datasets)


def _differences(candidate: Results, promoted: Results) -> list[npt.NDArray[np.float64]]:
    """Differences query by query, an array a dataset."""
    if candidate.datasets.keys() != promoted.datasets.keys():
        only = min(candidate.datasets.keys() ^ promoted.datasets.keys())
        raise ResultsUnusable(
            f"The results are not of the same queries: only one has the dataset {only!r}."
        )

    differences = []
    for name in sorted(candidate.datasets):
        new, old = candidate.datasets[name], promoted.datasets[name]
        if new.keys() != old.keys():
            only = min(new.keys() ^ old.keys())
            raise ResultsUnusable(
                f"The results are not of the same queries: only one has {only!r} of {name!r}."
            )
        differences.append(np.array([new[query] - old[query] for query in sorted(new)]))
    return differences
