"""Throughput: cost units that are done per second, estimated while there is work.

Depends on costs and on the times of the calls, not on a clock, a queue or a worker. Time is
measured in rounds. A round ends when everything that was inside at its beginning has left, so that
work in progress at either end distorts nothing, however long requests take. Invariant: a round in
which the server was not saturated never lowers the estimate, because it shows demand, not capacity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MEMORY_SECONDS = 2.0
"""Time constant of the moving average: a sample of this length weighs about two thirds, everything
before it one third."""
MIN_SAMPLE_SECONDS = 0.1
"""Shorter rounds are added up to one sample: each by itself is too noisy."""
SATURATED_SECONDS = 1.0
"""A round of this length counts as saturated: a request that takes so long keeps the server busy.
"""


@dataclass(slots=True, eq=False)
class Ticket:
    """Work that is inside: its expected cost, and the computed part of it once it has been
    answered, else None. The rest was cached; it is more than 1 where less than expected was reused.
    """

    cost: int
    round: int = 0
    computed: float | None = None


class ThroughputEstimator:
    """Estimates of the cost that is admitted and leaves again per second (`admitted_rate`), and of
    the computed part of it (`computed_rate`); None before the first sample."""

    def __init__(self) -> None:
        self.admitted_rate: float | None = None
        self.computed_rate: float | None = None
        self._inside = 0
        self._round = 0
        self._from_earlier_rounds = 0
        self._round_began = 0.0
        self._start_sample()

    def enter(self, ticket: Ticket, now: float) -> None:
        """Count work that is admitted at `now` (seconds)."""
        ticket.round = self._round
        self._inside += 1
        if self._inside == 1:
            self._begin_round(now)

    def leave(self, ticket: Ticket, now: float) -> None:
        """Count work that ends at `now`; its cost counts only if it has been answered."""
        self._inside -= 1
        if ticket.computed is not None:
            self._done += ticket.cost
            self._computed += ticket.cost * ticket.computed

        if ticket.round < self._round:
            self._from_earlier_rounds -= 1
        if not self._from_earlier_rounds:
            self._end_round(now)

    def add_cached(self, cost: int) -> None:
        """Count cost that was answered from the cache, without a ticket of its own."""
        self._done += cost

    def mark_saturated(self) -> None:
        """Record that more work is waiting in this round."""
        self._saturated = True

    def _begin_round(self, now: float) -> None:
        self._round += 1
        self._from_earlier_rounds = self._inside
        self._round_began = now

    def _end_round(self, now: float) -> None:
        seconds = now - self._round_began
        self._seconds += seconds
        self._saturated |= seconds >= SATURATED_SECONDS

        if self._seconds >= MIN_SAMPLE_SECONDS:
            self.admitted_rate = self._updated(self.admitted_rate, self._done)
            self.computed_rate = self._updated(self.computed_rate, self._computed)
            self._start_sample()
        if self._inside:
            self._begin_round(now)

    def _start_sample(self) -> None:
        self._seconds = 0.0
        self._done = 0.0
        self._computed = 0.0
        self._saturated = False

    def _updated(self, rate: float | None, done: float) -> float | None:
        """The moving average with this sample. A sample of failed or cancelled work alone is
        skipped."""
        if not done:
            return rate

        sample = done / self._seconds
        if rate is None:
            return sample
        if sample < rate and not self._saturated:
            return rate
        return rate + (sample - rate) * -math.expm1(-self._seconds / MEMORY_SECONDS)
