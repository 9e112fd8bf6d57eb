"""Token buckets and requests in flight, by scope (tenant), of one gateway process.

Depends on scopes, rates and times; the clock is the caller's. A bucket may go into debt. Invariant:
a bucket that is dropped has no request in flight and no debt, so a new one does not differ from it.
"""

from __future__ import annotations

import math
from typing import Protocol

BURST_SECONDS = 2.0
"""Seconds of its rate that a scope may save up."""
MAX_BUCKETS = 20_000
"""Above so many buckets, those are dropped that a new one would not differ from."""
_ROUNDING = 1e-6


class Buckets(Protocol):
    """The buckets of all scopes."""

    def level(self, scope: str, rate: float, now: float) -> float:
        """The pairs that a scope may take at `now`; negative while it is in debt."""

    def charge(self, scope: str, pairs: float, rate: float, now: float) -> float:
        """Take pairs, unless the scope is in debt; returns the level before."""

    def refund(self, scope: str, pairs: float) -> None:
        """Give pairs back."""

    def enter(self, scope: str, most: int) -> bool:
        """Count a request in flight; returns False, and counts none, where there are `most`."""

    def leave(self, scope: str) -> None:
        """Count a request in flight no longer."""


def refilled(level: float, seconds: float, rate: float) -> float:
    """The level of a bucket some seconds later."""
    return min(max(1.0, rate * BURST_SECONDS), level + seconds * rate)


def in_debt(level: float) -> bool:
    """True if a level is below zero by more than rounding."""
    return level < -_ROUNDING


class _Bucket:
    def __init__(self) -> None:
        self.level = math.inf
        self.refilled_at = 0.0
        self.in_flight = 0


class ProcessBuckets:
    """The buckets of one process, which counts by itself."""

    def __init__(self, max_buckets: int = MAX_BUCKETS) -> None:
        self._max_buckets = max_buckets
        self._buckets: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def level(self, scope: str, rate: float, now: float) -> float:
        bucket = self._bucket(scope)
        bucket.level = refilled(bucket.level, now - bucket.refilled_at, rate)
        bucket.refilled_at = now
        return bucket.level

    def charge(self, scope: str, pairs: float, rate: float, now: float) -> float:
        level = self.level(scope, rate, now)
        if not in_debt(level):
            self._bucket(scope).level -= pairs
        return level

    def refund(self, scope: str, pairs: float) -> None:
        self._bucket(scope).level += pairs

    def enter(self, scope: str, most: int) -> bool:
        bucket = self._bucket(scope)
        if bucket.in_flight >= most:
            return False
        bucket.in_flight += 1
        return True

    def leave(self, scope: str) -> None:
        self._bucket(scope).in_flight -= 1

    def _bucket(self, scope: str) -> _Bucket:
        if scope not in self._buckets:
            if len(self._buckets) >= self._max_buckets:
                self._drop_unused()
            self._buckets[scope] = _Bucket()
        return self._buckets[scope]

    def _drop_unused(self) -> None:
        """Drop the buckets without requests in flight and without debt."""
        self._buckets = {
            scope: bucket
            for scope, bucket in self._buckets.items()
            if bucket.in_flight or bucket.level < 0
        }
