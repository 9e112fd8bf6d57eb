"""The memory of request bodies, over all requests: as they arrive, and as what is read from them.

Knows numbers and scopes alone. Bytes are counted as they arrive, and until their request is
answered, for what was read from them (texts, encoded images) lives as long; then its answer is
counted, until the client has taken it. Invariant: never more than the bound is held, but for one
request that nobody else holds anything beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded
from service.observability.metrics import BODY_BYTES, BODY_LIMIT_BYTES, SHED

SCOPE_SHARE = 0.75
"""How much of all the requests of one scope (tenant) may hold together: its slow ones keep nobody
out."""


class BodyBudget:
    """A bound on the bytes of all requests' bodies together; the gauges show those that are
    `observed`."""

    def __init__(self, max_bytes: int, *, observed: bool = True) -> None:
        self.max_bytes = max_bytes
        self.total = 0
        self._by_scope: dict[str, int] = {}
        self._observed = observed
        if observed:
            BODY_LIMIT_BYTES.set(max_bytes)

    @contextmanager
    def held(self, announced: int = 0, scope: str = "") -> Iterator[Held]:
        """Gives one request's share; it, and `announced` bytes that do not fit, raise
        `Overloaded`."""
        mine = Held(self, scope)
        self.expect_room(mine, announced)
        try:
            yield mine
        finally:
            self.change(mine, -mine.bytes)

    def expect_room(self, held: Held, more: int) -> None:
        """Raise `Overloaded` if `more` bytes of a request do not fit."""
        beside = self._by_scope.get(held.scope, 0) - held.bytes
        most = self.max_bytes if not held.scope or not beside else int(self.max_bytes * SCOPE_SHARE)
        if self.total + more > self.max_bytes or beside + held.bytes + more > most:
            SHED.labels("body_budget").inc()
            raise Overloaded

    def change(self, held: Held, by: int) -> None:
        """Count bytes that a request holds from now on, or no longer."""
        held.bytes += by
        self.total += by
        self._by_scope[held.scope] = self._by_scope.get(held.scope, 0) + by
        if not self._by_scope[held.scope]:
            del self._by_scope[held.scope]
        if self._observed:
            BODY_BYTES.set(self.total)


class Held:
    """What one request holds, given back when it ends. Call it with the size of each piece that
    arrives."""

    def __init__(self, budget: BodyBudget, scope: str) -> None:
        self._budget = budget
        self.scope = scope
        self.bytes = 0

    def __call__(self, more: int) -> None:
        """Hold `more` bytes too; raises `Overloaded` where they do not fit."""
        self._budget.expect_room(self, more)
        self._budget.change(self, more)

    def grow(self, size: int) -> None:
        """Hold `size` bytes in all from now on, if that is more; raises `Overloaded` where they do
        not fit.

        A request that holds all that is held may grow beyond the bound: each one within the limits
        can be answered some time.
        """
        more = size - self.bytes
        if more <= 0:
            return
        if self._budget.total > self.bytes:
            self._budget.expect_room(self, more)
        self._budget.change(self, more)

    def hold_instead(self, answer: bytes) -> bytes:
        """The answer, which is held from now on, and nothing of the body any more."""
        self._budget.change(self, len(answer) - self.bytes)
        return answer
