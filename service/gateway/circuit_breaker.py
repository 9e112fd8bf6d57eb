"""A circuit breaker and a retry budget: protection of a dependency that keeps failing.

Depends on no network: the caller reports the end of each attempt. Clocks are monotonic. Invariant:
a half-open breaker admits one attempt at a time, and retries never exceed a fixed share of the
calls plus a fixed reserve.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "half_open", "open"]


class Breaker:
    """A circuit breaker: closed until `failures` attempts in a row fail, then open for `seconds`,
    then half open, when the result of one attempt closes or opens it.

    Every `enter()` that returned True must be followed by one `leave()`. Attempts that began
    before the breaker opened may end while it is open, and count: a success closes it, a failure
    keeps it open for another `seconds`.
    """

    def __init__(
        self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_failures = failures
        self._open_seconds = seconds
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        if self._opened_at is None:
            return "closed"
        if self._probing or self._clock() - self._opened_at >= self._open_seconds:
            return "half_open"
        return "open"

    def would_admit(self) -> bool:
        """True if `enter()` would return True now."""
        return self.state == "closed" or (self.state == "half_open" and not self._probing)

    def enter(self) -> bool:
        """Begin an attempt; False means that it must not be made."""
        if not self.would_admit():
            return False
        self._probing = self._opened_at is not None
        return True

    def leave(self, succeeded: bool | None) -> None:
        """End an attempt; None where it showed neither success nor failure, as a cancelled one."""
        self._probing = False
        if succeeded is None:
            return

        if succeeded:
            self._failures = 0
            self._opened_at = None
            return

        self._failures += 1
        if self._failures >= self._max_failures:
            self._opened_at = self._clock()


class RetryBudget:
    """A token bucket for retries: a call earns `share` of a token, a retry costs one token.

    The bucket begins with `reserve` tokens, and holds no more.
    """

    def __init__(self, *, share: float = 0.2, reserve: float = 10.0) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve

    def earn(self) -> None:
        """Count a first attempt."""
        self._tokens = min(self._reserve, self._tokens + self._share)

    def spend(self) -> bool:
        """Pay for one retry; False where there is not enough left for it."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
