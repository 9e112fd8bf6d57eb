"""Means over a few seeds with Student's interval, also of paired differences.

Depends on numbers alone. Invariant: an interval is symmetric about its mean, and moves and
stretches as its values do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import nct
from scipy.stats import t as student

_UPPER_TAIL = 0.975
"""The quantile of a two-sided interval of 95 %."""
POWER = 0.8
"""The share of cases in which a test is to find a difference that is there."""
MAX_SEEDS = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and the half width of its 95 % interval; one value alone has no interval."""

    mean: float
    reach: float | None
    values: int

    @property
    def sign(self) -> int:
        """-1 or 1 where the whole interval is on that side of 0, else 0."""
        if self.reach is None or abs(self.mean) <= self.reach:
            return 0
        return 1 if self.mean > 0 else -1


def interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of the mean of draws from one normal distribution."""
    if not values:
        raise ValueError("an interval needs a value")
    if len(values) == 1:
        return Interval(values[0], None, 1)

    # to three decimals, as in printed tables, by which the page that ships was computed
    quantile = round(float(student.ppf(_UPPER_TAIL, len(values) - 1)), 3)
    reach = quantile * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), reach, len(values))


def seeds_needed(values: Sequence[float], size: float) -> int | None:
    """The least number of seeds with which a paired t-test at 5 % finds a mean difference of `size`
    with the power `POWER`, where differences spread as `values` do.

    None where more than `MAX_SEEDS` are needed. Takes two values or more.
    """
    spread = stdev(values)
    if size == 0:
        return None
    if spread == 0 or _power(2, abs(size) / spread) >= POWER:
        return 2

    low, high = 2, MAX_SEEDS
    if _power(high, abs(size) / spread) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _power(middle, abs(size) / spread) >= POWER:
            high = middle
        else:
            low = middle
    return high


def _power(seeds: int, size: float) -> float:
    """The power of a two-sided paired t-test for a difference in units of its spread."""
    quantile = float(student.ppf(_UPPER_TAIL, seeds - 1))
    shift = size * math.sqrt(seeds)
    above = float(nct.sf(quantile, seeds - 1, shift))
    below = float(nct.cdf(-quantile, seeds - 1, shift))
    # far in the tail scipy has no value, and the chance is 0
    return above + (0.0 if math.isnan(below) else below)
