"""Quotas of each scope (tenant): pairs per second, and requests in flight.

Depends on scopes and their quotas, not on keys; the clock is an argument. A rate is a token bucket
that may go into debt: a request that comes while its scope is not in debt is served whole, however
large it is, and later ones wait until the debt is paid off. So no request is too large for its
tenant, and none starves. Each gateway counts by itself. Invariant: over any time, a scope gets at
most its rate, its burst and one request; pairs of a request that the service refused for reasons of
its own are given back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import NoWorker, Overloaded, RateLimited

BURST_SECONDS = 2.0
"""Seconds of its rate that a scope may save up."""
MAX_RETRY_AFTER = 30
"""Seconds. Cohere's SDKs obey up to a minute, twice, before they report an error."""
MAX_BUCKETS = 20_000
"""Above so many buckets, those are dropped that a new one would not differ from."""
_MINUTES_FROM = 60
"""Seconds of debt from which a message has minutes."""
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Quota:
    """The bounds of one scope; None for no bound."""

    pairs_per_second: float | None = None
    max_in_flight: int | None = None


UNBOUNDED = Quota()


class _Bucket:
    """The token bucket of one scope, and the number of its requests in flight."""

    def __init__(self, now: float) -> None:
        self.level = math.inf
        self.refilled_at = now
        self.in_flight = 0

    def refill(self, rate: float, now: float) -> None:
        capacity = max(1.0, rate * BURST_SECONDS)
        self.level = min(capacity, self.level + (now - self.refilled_at) * rate)
        self.refilled_at = now


class QuotaTicket:
    """One request of a scope; `charge` it once its number of pairs is known."""

    def __init__(self, bucket: _Bucket, quota: Quota, clock: Callable[[], float]) -> None:
        self._bucket = bucket
        self._quota = quota
        self._rate = quota.pairs_per_second
        self._clock = clock
        self._charged = 0

    def for_part(self) -> QuotaTicket:
        """A ticket for a part of the request that is charged, and perhaps refunded, by itself."""
        return QuotaTicket(self._bucket, self._quota, self._clock)

    def expect_credit(self) -> None:
        """Raise `RateLimited` while the scope is in debt."""
        if self._rate is None:
            return
        self._bucket.refill(self._rate, self._clock())
        if self._bucket.level < -_ROUNDING:
            raise _rate_limited(-self._bucket.level / self._rate)

    def charge(self, pairs: int) -> None:
        """Take `pairs` from the bucket; raises `RateLimited` if the scope is in debt by now."""
        self.expect_credit()
        if self._rate is not None:
            self._charged = pairs
            self._bucket.level -= pairs

    def refund(self) -> None:
        """Give back the pairs that were charged, because none of them was scored."""
        self._bucket.level += self._charged
        self._charged = 0


class Quotas:
    """The buckets of all scopes, dropped above `max_buckets` where they are as good as new."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, max_buckets: int = MAX_BUCKETS
    ) -> None:
        self._clock = clock
        self._max_buckets = max_buckets
        self._buckets: dict[str, _Bucket] = {}

    @property
    def scopes(self) -> int:
        """The number of scopes that have a bucket."""
        return len(self._buckets)

    @contextmanager
    def ticket(self, scope: str, quota: Quota) -> Iterator[QuotaTicket]:
        """Count a request while the context lasts; raises `RateLimited` where the scope has too
        many in flight, or is in debt."""
        bucket = self._bucket(scope)
        if quota.max_in_flight is not None and bucket.in_flight >= quota.max_in_flight:
            raise RateLimited(
                f"This API key has {bucket.in_flight} requests in flight, which is its quota.",
                retry_after=1,
            )
        ticket = QuotaTicket(bucket, quota, self._clock)
        ticket.expect_credit()

        bucket.in_flight += 1
        try:
            yield ticket
        except (Overloaded, NoWorker):
            ticket.refund()
            raise
        finally:
            bucket.in_flight -= 1

    def _bucket(self, scope: str) -> _Bucket:
        if scope not in self._buckets:
            if len(self._buckets) >= self._max_buckets:
                self._drop_unused()
            self._buckets[scope] = _Bucket(self._clock())
        return self._buckets[scope]

    def _drop_unused(self) -> None:
        """Drop the buckets without requests in flight and without debt."""
        self._buckets = {
            scope: bucket
            for scope, bucket in self._buckets.items()
            if bucket.in_flight or bucket.level < 0
        }


def _rate_limited(seconds: float) -> RateLimited:
    """The error of a scope that is in debt for so many seconds.

    The message has the whole time, `Retry-After` no more than clients tolerate.
    """
    minutes = min(seconds / 60, 1e6)
    wait = f"{math.ceil(seconds)} s" if seconds <= _MINUTES_FROM else f"{math.ceil(minutes)} min"
    message = f"This API key's quota of pairs is used up: more in {wait}."
    return RateLimited(message, retry_after=math.ceil(min(MAX_RETRY_AFTER, seconds)))
