"""The percentile bootstrap of means over the queries of a benchmark.

Does not depend on metrics, files or models. Invariant: equal values and seeds give equal intervals.

The interval is the percentile interval of Efron and Tibshirani (1993, chapter 13). Queries are
resampled within each dataset, since a benchmark's score is a mean of its datasets' means. Where the
values are differences of two systems on the same queries, the bootstrap is a paired one. Datasets
of the same queries, such as those of ViDoRe v3.1 with four first stages each, are not independent:
they are resampled together, or their mean would have an interval that is too narrow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95
_DRAWS_AT_ONCE = 2**22
"""Draws in memory at a time."""
_COUNTED_QUERIES, _COUNTED_SHARE = 4_096, 1 / 16
"""A dataset of so many queries, with at most this share of distinct values, is resampled by the
counts of its values."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def differs_from_zero(self) -> bool:
        """True if 0 is outside the interval."""
        return self.low > 0 or self.high < 0


class Bootstrap:
    """Resampled means of datasets, from which those of rows, cells and benchmarks are made."""

    def __init__(
        self,
        values: Mapping[str, FloatArray],
        *,
        groups: Mapping[str, Hashable] | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        """`values` are those of the queries by dataset, each `[queries]` and not empty. Datasets of
        an equal group have the same queries in the same order."""
        rng = np.random.default_rng(seed)
        self._means = {name: each.mean() for name, each in values.items()}
        self._resampled: dict[str, FloatArray] = {}
        group_of: dict[str, Hashable] = {name: (groups or {}).get(name, name) for name in values}
        members, states = Counter(group_of.values()), dict[Hashable, Any]()
        for name, each in values.items():
            group = group_of[name]
            alone = members[group] == 1
            drawing = rng
            if not alone and group in states:
                drawing = np.random.default_rng()
                drawing.bit_generator.state = states[group]
            elif not alone:
                states[group] = rng.bit_generator.state
            self._resampled[name] = _resampled_means(each, resamples, drawing, alone=alone)

    def estimate(self, rows: Iterable[Sequence[str]]) -> Estimate:
        """The mean over rows of a table, each the mean over some datasets."""
        rows = list(rows)
        value = np.mean([np.mean([self._means[name] for name in row]) for row in rows])
        low, high = np.quantile(self.resampled(rows), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(float(value), float(low), float(high))

    def resampled(self, rows: Iterable[Sequence[str]]) -> FloatArray:
        """Resampled means over rows, `[resamples]`."""
        total: FloatArray | float = 0.0
        count = 0
        for row in rows:
            total = total + sum(self._resampled[name] for name in row) / len(row)
            count += 1
        return np.asarray(total / count)


def bootstrap(datasets: Sequence[FloatArray], *, resamples: int, seed: int) -> FloatArray:
    """Resampled scores, `[resamples]`: the mean over datasets of the mean of as many values as the
    dataset has, drawn with replacement."""
    named = {str(number): values for number, values in enumerate(datasets)}
    return Bootstrap(named, resamples=resamples, seed=seed).resampled([name] for name in named)


def _resampled_means(
    values: FloatArray, resamples: int, rng: np.random.Generator, *, alone: bool
) -> FloatArray:
    """Means, `[resamples]`, of as many values as there are, drawn with replacement.

    A large dataset of few distinct values (a hit rate has two) that is resampled `alone` has the
    counts of its values drawn instead: they are multinomial, so that the means have the same
    distribution at less cost.
    """
    size = len(values)
    if alone and size >= _COUNTED_QUERIES:
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= size * _COUNTED_SHARE:
            drawn = rng.multinomial(size, counts / size, size=resamples)
            return np.asarray(drawn @ distinct / size)

    means = np.empty(resamples)
    at_once = max(1, _DRAWS_AT_ONCE // size)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(size, size=(count, size))
        means[start : start + count] = values[drawn].mean(axis=1)
    return means
