"""What each tenant may ask of the service: pairs a second, and requests in flight.

Knows scopes and their quotas, not who has which; its clock is given to it. A meter is a bucket that
fills with time. Whoever comes while it is not in debt is served whole, however much that takes, and
the debt is waited off by the next: so no request is too large for its tenant, and none starves.
Each gateway counts for itself. Invariant: over any time, a scope is given at most its rate, its
burst and one request; and what was refused by the service, not by its quota, is given back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import NoWorker, Overloaded, RateLimited

BURST_SECONDS = 2.0
"""How much of its rate a tenant may save up."""
MAX_RETRY_AFTER = 30
"""Seconds. Cohere's SDKs sleep that long twice, up to a minute each, before their caller hears a
word."""
_SHORT = 60
"""Seconds of debt that are said as such; more are said in minutes."""
_ROUNDING = 1e-6
_MANY = 20_000
"""Meters, above which those that are as good as new are dropped."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of one scope; None: unbounded."""

    pairs_per_second: float | None = None
    max_in_flight: int | None = None


UNBOUNDED = Quota()


class _Meter:
    """One scope's bucket and its requests in flight."""

    def __init__(self, now: float) -> None:
        self.level = math.inf
        self.at = now
        self.in_flight = 0

    def refill(self, rate: float, now: float) -> None:
        self.level = min(max(1.0, rate * BURST_SECONDS), self.level + (now - self.at) * rate)
        self.at = now


class QuotaTicket:
    """One request of a scope; `charge` it with its pairs once they are known."""

    def __init__(self, meter: _Meter, quota: Quota, clock: Callable[[], float]) -> None:
        self._meter = meter
        self._rate = quota.pairs_per_second
        self._clock = clock
        self._charged = 0

    def expect_credit(self) -> None:
        """Raise `RateLimited` while the scope is in debt."""
        if self._rate is None:
            return
        self._meter.refill(self._rate, self._clock())
        if self._meter.level < -_ROUNDING:
            raise _in_debt(-self._meter.level / self._rate)

    def charge(self, pairs: int) -> None:
        """Take `pairs` from the bucket; raises `RateLimited` if it is in debt by now."""
        self.expect_credit()
        if self._rate is not None:
            self._charged = pairs
            self._meter.level -= pairs

    def refund(self) -> None:
        """Give back what was charged: nothing was done for it."""
        self._meter.level += self._charged
        self._charged = 0


class Quotas:
    """The meters of all scopes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meters: dict[str, _Meter] = {}

    @contextmanager
    def ticket(self, scope: str, quota: Quota) -> Iterator[QuotaTicket]:
        """Count a request while the context lasts; raises `RateLimited` where the scope has too
        many, or no credit."""
        meter = self._meter(scope)
        visit = QuotaTicket(meter, quota, self._clock)
        if quota.max_in_flight is not None and meter.in_flight >= quota.max_in_flight:
            raise RateLimited(
                f"This API key has {meter.in_flight} requests in flight, which is its quota.",
                retry_after=1,
            )
        visit.expect_credit()
        meter.in_flight += 1
        try:
            yield visit
        except (Overloaded, NoWorker):
            visit.refund()
            raise
        finally:
            meter.in_flight -= 1

    def _meter(self, scope: str) -> _Meter:
        if scope not in self._meters:
            if len(self._meters) >= _MANY:
                self._meters = {
                    name: meter
                    for name, meter in self._meters.items()
                    if meter.in_flight or meter.level < 0
                }
            self._meters[scope] = _Meter(self._clock())
        return self._meters[scope]


def _in_debt(seconds: float) -> RateLimited:
    """The refusal of a scope that is in debt for so many seconds.

    The sentence says how long; `Retry-After` no more than clients bear.
    """
    minutes = min(seconds / 60, 1e6)
    wait = f"{math.ceil(seconds)} s" if seconds <= _SHORT else f"{math.ceil(minutes)} min"
    message = f"This API key's quota of pairs is used up: more in {wait}."
    return RateLimited(message, retry_after=math.ceil(min(MAX_RETRY_AFTER, seconds)))
