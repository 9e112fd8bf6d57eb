"""Whether a candidate may take a promoted checkpoint's place: a paired bootstrap over the queries
of one benchmark.

Knows results, no models and no registry. Invariant: the same results give the same verdict, and
values of different queries are never compared.

The interval is the percentile interval of Efron and Tibshirani (1993, chapter 13) for the
difference of two means on the same queries; queries are drawn anew within each dataset, since a
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
_AT_ONCE = 2**22
"""Draws held in memory at a time."""


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
        """Worse beyond the interval: what chance in the choice of queries explains is let
        through."""
        return self.high < 0

    def sentence(self) -> str:
        """The verdict for people."""
        word = "worse than" if self.worse else "better than" if self.low > 0 else "not worse than"
        return (
            f"The candidate is {word} the promoted version on {self.benchmark}: {self.metric}"
            f" {self.candidate:.4f} against {self.promoted:.4f}, difference {self.difference:+.4f},"
            f" 95 % interval [{self.low:+.4f}, {self.high:+.4f}] over {self.queries} queries."
        )


def compare(
    candidate: Results, promoted: Results, *, resamples: int = RESAMPLES, seed: int = 0
) -> Verdict:
    """The paired bootstrap of two results; raises `ResultsUnusable` where they are not of the same
    queries, or of too few."""
    if (candidate.benchmark, candidate.metric) != (promoted.benchmark, promoted.metric):
        raise ResultsUnusable(
            f"{candidate.benchmark} ({candidate.metric}) cannot be compared with"
            f" {promoted.benchmark} ({promoted.metric})."
        )
    differences = _paired(candidate, promoted)
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
    """`[resamples]` means over datasets of the means of as many values as each has, drawn with
    replacement."""
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for values in datasets:
        rows = max(1, _AT_ONCE // len(values))
        for start in range(0, resamples, rows):
            count = min(rows, resamples - start)
            total[start : start + count] += values[
                rng.integers(len(values), size=(count, len(values)))
            ].mean(axis=1)
    return total / len(datasets)


def _paired(candidate: Results, promoted: Results) -> list[npt.NDArray[np.float64]]:
    """Differences query by query, an array a dataset."""
    if candidate.datasets.keys() != promoted.datasets.keys():
        only = min(candidate.datasets.keys() ^ promoted.datasets.keys())
        raise ResultsUnusable(
            f"The results are not of the same queries: only one has the dataset {only!r}."
        )
    differences = []
    for name in sorted(candidate.datasets):
        ours, theirs = candidate.datasets[name], promoted.datasets[name]
        if ours.keys() != theirs.keys():
            only = min(ours.keys() ^ theirs.keys())
            raise ResultsUnusable(
                f"The results are not of the same queries: only one has {only!r} of {name!r}."
            )
        differences.append(np.array([ours[query] - theirs[query] for query in sorted(ours)]))
    return differences
