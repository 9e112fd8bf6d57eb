"""Means over a few seeds with Student's interval, and of paired differences.

Knows numbers. Invariant: an interval is symmetric about its mean, and moves and stretches as its
values do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

MAX_VALUES = 30
_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045,
)  # fmt: skip
"""Student's t at 97.5 %, by degrees of freedom from 1."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and how far its 95 % interval reaches to either side; None where one value tells
    nothing of others."""

    mean: float
    reach: float | None
    values: int

    @property
    def sign(self) -> int:
        """-1 or 1 where all of the interval lies on that side of 0, else 0."""
        if self.reach is None or abs(self.mean) <= self.reach:
            return 0
        return 1 if self.mean > 0 else -1


def interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of the mean of 1 to 30 values, as of draws from one normal distribution."""
    if not 1 <= len(values) <= MAX_VALUES:
        raise ValueError(f"an interval is of 1 to {MAX_VALUES} values, not of {len(values)}")
    if len(values) == 1:
        return Interval(values[0], None, 1)
    return Interval(
        fmean(values),
        _QUANTILES[len(values) - 2] * stdev(values) / math.sqrt(len(values)),
        len(values),
    )
