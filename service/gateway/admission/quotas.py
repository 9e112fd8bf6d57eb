"""Quotas of each scope (tenant): pairs per second, and requests in flight.

Depends on scopes and their quotas, not on keys; the clock is an argument. A rate is a token bucket
that may go into debt: a request that comes while its scope is not in debt is served whole, however
large it is, and later ones wait until the debt is paid off. So no request is too large for its
tenant, and none starves. Each gateway counts by itself, its processes together. Invariant: over any
time, a scope gets at most its rate, its burst and one request; pairs of a request that the service
refused for reasons of its own, or for images that it does not store, are given back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import NoWorker, Overloaded, RateLimited, UnknownImage
from service.gateway.admission.buckets import Buckets, ProcessBuckets, in_debt

REFUNDED = (Overloaded, NoWorker, UnknownImage)
"""Refusals after which pairs are given back: none was scored, and the caller is to ask again."""
MAX_RETRY_AFTER = 30
"""Seconds. Cohere's SDKs obey up to a minute, twice, before they report an error."""
_MINUTES_FROM = 60
"""Seconds of debt from which a message has minutes."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The bounds of one scope; None for no bound."""

    pairs_per_second: float | None = None
    max_in_flight: int | None = None


UNBOUNDED = Quota()


class QuotaTicket:
    """One request of a scope; `charge` it once its number of pairs is known."""

    def __init__(
        self, buckets: Buckets, scope: str, rate: float | None, clock: Callable[[], float]
    ) -> None:
        self._buckets = buckets
        self._scope = scope
        self._rate = rate
        self._clock = clock
        self._charged = 0

    def for_part(self) -> QuotaTicket:
        """A ticket for a part of the request that is charged, and perhaps refunded, by itself."""
        return QuotaTicket(self._buckets, self._scope, self._rate, self._clock)

    def expect_credit(self) -> None:
        """Raise `RateLimited` while the scope is in debt."""
        if self._rate is not None:
            level = self._buckets.level(self._scope, self._rate, self._clock())
            _check(level, self._rate)

    def charge(self, pairs: int) -> None:
        """Take `pairs` from the bucket; raises `RateLimited` if the scope is in debt by now."""
        if self._rate is not None:
            level = self._buckets.charge(self._scope, pairs, self._rate, self._clock())
            _check(level, self._rate)
            self._charged = pairs

    def refund(self) -> None:
        """Give back the pairs that were charged, because none of them was scored."""
        if self._charged:
            self._buckets.refund(self._scope, self._charged)
        self._charged = 0


class Quotas:
    """The quotas of all scopes, counted in `buckets`."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, buckets: Buckets | None = None
    ) -> None:
        self._clock = clock
        self._buckets = ProcessBuckets() if buckets is None else buckets

    @contextmanager
    def ticket(self, scope: str, quota: Quota) -> Iterator[QuotaTicket]:
        """Count a request while the context lasts; raises `RateLimited` where the scope has too
        many in flight, or is in debt."""
        ticket = QuotaTicket(self._buckets, scope, quota.pairs_per_second, self._clock)
        with self._in_flight(scope, quota.max_in_flight):
            ticket.expect_credit()
            try:
                yield ticket
            except REFUNDED:
                ticket.refund()
                raise

    @contextmanager
    def _in_flight(self, scope: str, most: int | None) -> Iterator[None]:
        if most is None:
            yield
            return

        if not self._buckets.enter(scope, most):
            raise RateLimited(
                f"This API key has {most} requests in flight, which is its quota.", retry_after=1
            )
        try:
            yield
        finally:
            self._buckets.leave(scope)


def _check(level: float, rate: float) -> None:
    if in_debt(level):
        raise _rate_limited(-level / rate)


def _rate_limited(seconds: float) -> RateLimited:
    """The error of a scope that is in debt for so many seconds.

    The message has the whole time, `Retry-After` no more than clients tolerate.
    """
    minutes = min(seconds / 60, 1e6)
    wait = f"{math.ceil(seconds)} s" if seconds <= _MINUTES_FROM else f"{math.ceil(minutes)} min"
    message = f"This API key's quota of pairs is used up: more in {wait}."
    return RateLimited(message, retry_after=math.ceil(min(MAX_RETRY_AFTER, seconds)))
