"""How fast work gets done: cost units a second, measured while there is work.

Knows costs and times it is told, no clock, no line and no worker. Time is measured in rounds: a
round ends when everything that was inside at its beginning is out, so that neither what is half
done at its start nor what is half done at its end tells, however long requests take. Invariant: a
round in which the server had time to spare never lowers the pace, for it shows only what was asked
of the server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MEMORY_SECONDS = 2.0
"""A sample of this length counts about two thirds, all before it one third."""
LEAST_SECONDS = 0.1
"""Shorter rounds are put together: one alone says little."""
LONG_SECONDS = 1.0
"""Who takes as long as this keeps the server busy."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A turn inside: its cost, and how much of that was new work (0..1) once it has been answered;
    else None."""

    cost: int
    round: int = 0
    computed: float | None = None


class ThroughputEstimator:
    """What leaves a second, as estimated (`line`), and what of it was computed (`work`); None
    before the first sample."""

    def __init__(self) -> None:
        self.line: float | None = None
        self.work: float | None = None
        self._inside = 0
        self._round = 0
        self._earlier = 0  # inside since before this round
        self._since = 0.0
        self._start_sample()

    def enter(self, stay: Ticket, now: float) -> None:
        stay.round = self._round
        self._inside += 1
        if self._inside == 1:
            self._begin(now)

    def leave(self, stay: Ticket, now: float) -> None:
        self._inside -= 1
        if stay.computed is not None:
            self._done += stay.cost
            self._computed += stay.cost * stay.computed
        if stay.round < self._round:
            self._earlier -= 1
        if not self._earlier:
            self._end(now)

    def note_known(self, cost: int) -> None:
        """Count what was answered without work, beside what is inside."""
        self._done += cost

    def mark_saturated(self) -> None:
        """Say that there is more to do than is inside."""
        self._saturated = True

    def _begin(self, now: float) -> None:
        self._round += 1
        self._earlier = self._inside
        self._since = now

    def _end(self, now: float) -> None:
        seconds = now - self._since
        self._seconds += seconds
        self._saturated |= seconds >= LONG_SECONDS
        if self._seconds >= LEAST_SECONDS:
            self.line = self._updated(self.line, self._done)
            self.work = self._updated(self.work, self._computed)
            self._start_sample()
        if self._inside:
            self._begin(now)

    def _start_sample(self) -> None:
        self._seconds = 0.0
        self._done = 0.0
        self._computed = 0.0
        self._saturated = False

    def _updated(self, pace: float | None, done: float) -> float | None:
        """The pace with this sample; failed and cancelled work alone says nothing."""
        if not done:
            return pace
        sample = done / self._seconds
        if pace is None:
            return sample
        if sample < pace and not self._saturated:
            return pace
        return pace + (sample - pace) * -math.expm1(-self._seconds / MEMORY_SECONDS)
