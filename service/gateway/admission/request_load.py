"""The load that requests make: their average cost, the time of the last one, and the cost that was
granted to them.

Depends on costs and times alone. Invariant: one request changes the average by at most `WEIGHT` of
its difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WEIGHT = 1 / 16
"""The weight of the latest request in the average cost."""


@dataclass(slots=True)
class RequestLoad:
    """The cost units of recent requests."""

    mean_cost: float = math.nan
    """The average cost; NaN before the first request."""
    last_seen: float = -math.inf
    """The time of the last request, in seconds."""
    granted: int = 0
    """The cost of all turns that were granted so far."""

    def add(self, cost: int, now: float) -> None:
        """Count a request that arrives at `now`."""
        mean = cost if math.isnan(self.mean_cost) else self.mean_cost
        self.mean_cost = mean + (cost - mean) * WEIGHT
        self.last_seen = now

    def is_quiet(self, now: float, seconds: float) -> bool:
        """True if no request has arrived for so many seconds."""
        return now - self.last_seen > seconds
