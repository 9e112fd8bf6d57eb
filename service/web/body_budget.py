"""A budget for the memory of all request bodies together.

Depends on sizes and scopes (tenants) alone. A body's bytes are reserved as they arrive, until the
request is answered, because what is parsed from them (texts, encoded images) lives as long. Then
the answer's bytes are reserved, until the client has read it. Invariant: the reserved bytes never
exceed the budget, except by a request that holds the only reservation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded
from service.observability.metrics import BODY_BYTES, BODY_LIMIT_BYTES, SHED

SCOPE_SHARE = 0.75
"""The share of the budget that several requests of one scope can reserve together, so that a scope
with slow requests leaves room for others."""


class BodyBudget:
    """A bound on the bytes of all request bodies together.

    With `observed`, the gauges of the metrics show it.
    """

    def __init__(self, max_bytes: int, *, observed: bool = True) -> None:
        self.max_bytes = max_bytes
        self.total = 0
        self._by_scope: dict[str, int] = {}
        self._observed = observed
        if observed:
            BODY_LIMIT_BYTES.set(max_bytes)

    @contextmanager
    def reserve(self, announced: int = 0, scope: str = "") -> Iterator[Reservation]:
        """A request's reservation, released at the end of the `with` block.

        Raises `Overloaded` if `announced` bytes do not fit.
        """
        reservation = Reservation(self, scope)
        self.check_room(reservation, announced)
        try:
            yield reservation
        finally:
            self.change(reservation, -reservation.bytes)

    def has_room(self, reservation: Reservation, more: int) -> bool:
        """True if `more` bytes of a request fit."""
        of_scope = self._by_scope.get(reservation.scope, 0)
        is_alone = not reservation.scope or of_scope == reservation.bytes
        scope_limit = self.max_bytes if is_alone else int(self.max_bytes * SCOPE_SHARE)
        return self.total + more <= self.max_bytes and of_scope + more <= scope_limit

    def check_room(self, reservation: Reservation, more: int) -> None:
        """Raise `Overloaded` if `more` bytes of a request do not fit."""
        if not self.has_room(reservation, more):
            SHED.labels("body_budget").inc()
            raise Overloaded

    def change(self, reservation: Reservation, by: int) -> None:
        """Grow or shrink a reservation, without a check."""
        reservation.bytes += by
        self.total += by
        self._by_scope[reservation.scope] = self._by_scope.get(reservation.scope, 0) + by
        if not self._by_scope[reservation.scope]:
            del self._by_scope[reservation.scope]

        if self._observed:
            BODY_BYTES.set(self.total)


class Reservation:
    """The bytes that one request has reserved. Call it with the size of each chunk that arrives."""

    def __init__(self, budget: BodyBudget, scope: str) -> None:
        self._budget = budget
        self.scope = scope
        self.bytes = 0

    def __call__(self, more: int) -> None:
        """Reserve `more` bytes; raises `Overloaded` if they do not fit."""
        self._budget.check_room(self, more)
        self._budget.change(self, more)

    def has_room(self, size: int) -> bool:
        """True if `size` bytes in total fit, as `grow` has it."""
        alone = self._budget.total == self.bytes
        return alone or self._budget.has_room(self, size - self.bytes)

    def resize(self, size: int) -> None:
        """Reserve `size` bytes in total, or fewer than before; raises as `grow` does."""
        self.grow(size)
        self._budget.change(self, size - self.bytes)

    def add(self, more: int) -> None:
        """Reserve `more` bytes, or fewer where it is negative, without a check: they are held
        already."""
        self._budget.change(self, more)

    def grow(self, size: int) -> None:
        """Reserve `size` bytes in total, if that is more; raises `Overloaded` if they do not fit.

        The only reservation can grow beyond the budget, so that every request within the limits
        can be answered at some time.
        """
        more = size - self.bytes
        if more <= 0:
            return

        if self._budget.total > self.bytes:
            self._budget.check_room(self, more)
        self._budget.change(self, more)

    def replace_with(self, answer: bytes) -> bytes:
        """Reserve an answer's bytes in place of the body's; returns the answer."""
        self._budget.change(self, len(answer) - self.bytes)
        return answer
