"""The gate of a promotion: a paired bootstrap over the queries of one benchmark finds whether a
candidate is worse than the promoted version.

Does not depend on models or a registry. Invariant: equal results give an equal verdict, and values
of different queries are never compared.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from model_store.evaluation.bootstrap import RESAMPLES, Bootstrap, FloatArray
from model_store.evaluation.results import Results, ResultsUnusable

MIN_QUERIES = 20


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
    differences = paired_differences(candidate, promoted)
    queries = sum(map(len, differences.values()))
    if queries < MIN_QUERIES:
        raise ResultsUnusable(
            f"{queries} queries are too few to compare on: {MIN_QUERIES} are needed."
        )

    groups = groups_of(candidate)
    resampled = Bootstrap(differences, groups=groups, resamples=resamples, seed=seed)
    estimate = resampled.estimate(candidate.table.values())
    return Verdict(
        candidate.benchmark,
        candidate.metric,
        queries,
        promoted.score,
        candidate.score,
        estimate.value,
        estimate.low,
        estimate.high,
    )


def paired_differences(candidate: Results, promoted: Results) -> dict[str, FloatArray]:
    """Differences query by query, by dataset. Raises `ResultsUnusable` where the results are not
    of the same queries and candidates."""
    _check_alike(candidate, promoted)
    differences = {}
    for name in sorted(candidate.datasets):
        new, old = candidate.datasets[name], promoted.datasets[name]
        if new.keys() != old.keys():
            only = min(new.keys() ^ old.keys())
            raise ResultsUnusable(
                f"The results are not of the same queries: only one has {only!r} of {name!r}."
            )
        differences[name] = np.array([new[query] - old[query] for query in sorted(new)])
    return differences


def groups_of(results: Results) -> dict[str, Hashable]:
    """Equal for datasets of one cell that have the same queries."""
    groups: dict[str, Hashable] = {}
    for row in (results.rows or {}).values():
        for name in row.datasets:
            groups[name] = row.cell, tuple(sorted(results.datasets[name]))
    return groups


def _check_alike(candidate: Results, promoted: Results) -> None:
    """Raise `ResultsUnusable` where benchmark, metric or candidates differ."""
    if candidate.datasets.keys() != promoted.datasets.keys():
        only = min(candidate.datasets.keys() ^ promoted.datasets.keys())
        raise ResultsUnusable(
            f"The results are not of the same queries: only one has the dataset {only!r}."
        )

    new, old = candidate.candidates or {}, promoted.candidates or {}
    for name in sorted(new.keys() & old.keys()):
        if new[name] != old[name]:
            raise ResultsUnusable(
                f"The results are not of the same candidates: those of {name!r} differ, by its"
                " data, its queries, the first stage, the number of candidates or the judgements."
            )
    if (candidate.benchmark, candidate.metric) != (promoted.benchmark, promoted.metric):
        raise ResultsUnusable(
            f"{candidate.benchmark} ({candidate.metric}) cannot be compared with"
            f" {promoted.benchmark} ({promoted.metric})."
        )
    if candidate.rows != promoted.rows:
        raise ResultsUnusable("The results have tables of different rows.")
