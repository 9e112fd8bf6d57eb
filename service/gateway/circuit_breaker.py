"""When to stop asking something that keeps failing, and how much more than once to ask it.

Knows no network: callers tell what became of an attempt. Clocks are monotonic. Invariant: while a
breaker is half open there is one attempt at a time, and retries never exceed a fixed share of calls
plus a fixed reserve.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "half_open", "open"]


class Breaker:
    """Closed until `failures` attempts in a row fail; then open for `seconds`; then half open: one
    probe decides.

    Every `enter()` that gave True must be followed by one `leave()`. An attempt that began before
    it opened may still leave meanwhile, and what it learnt counts: a success closes it, a failure
    keeps it open for as long again.
    """

    def __init__(
        self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._seconds = seconds
        self._clock = clock
        self._failed = 0
        self._opened: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        if self._opened is None:
            return "closed"
        return (
            "half_open"
            if self._probing or self._clock() - self._opened >= self._seconds
            else "open"
        )

    def would_admit(self) -> bool:
        """Whether an attempt made now would be let through."""
        return self._opened is None or (self.state == "half_open" and not self._probing)

    def enter(self) -> bool:
        """Begin an attempt; False: do not make it."""
        if not self.would_admit():
            return False
        self._probing = self._opened is not None
        return True

    def leave(self, succeeded: bool | None) -> None:
        """End an attempt. None: nothing was learnt (it was cancelled, say)."""
        self._probing = False
        if succeeded:
            self._failed, self._opened = 0, None
        elif succeeded is False:
            self._failed += 1
            if self._failed >= self._limit:
                self._opened = self._clock()


class RetryBudget:
    """Tokens for retries: a call earns `share` of one, a retry costs one. It starts with `reserve`,
    and keeps no more."""

    def __init__(self, *, share: float = 0.2, reserve: float = 10.0) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve

    def earn(self) -> None:
        """Count a first attempt."""
        self._tokens = min(self._reserve, self._tokens + self._share)

    def spend(self) -> bool:
        """Take what one retry costs; False: there is not enough left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
