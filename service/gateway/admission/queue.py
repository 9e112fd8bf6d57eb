"""The admission queue: a request is admitted by its cost, waits a bounded time, or is refused.

The cost that may be inside follows from the measured throughput by Little's law: as much as takes
`INSIDE_SECONDS`, and always a few turns, so that no worker idles. A small request takes one turn. A
large one is admitted with its first slice and takes a new turn from the same queue for each further
one, so no other request waits longer for it than one slice takes. The queue is fair to scopes
(tenants), and keeps some places for scopes with nothing inside.

Depends on costs, not on their causes. Invariant: nothing is admitted after its deadline or beyond
the bound; everything that a request holds is given back, however it ends; a request that was
admitted is never refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from service.errors import DeadlineExceeded
from service.gateway.admission.admitted import Admitted, Inside
from service.gateway.admission.computed_parts import ExpectedPart, everything, expected_cost
from service.gateway.admission.fair_queue import FairQueue, Kind, Turn
from service.gateway.admission.refusal import overloaded
from service.gateway.admission.request_load import RequestLoad
from service.gateway.admission.throughput import ThroughputEstimator
from service.gateway.admission.worker_turns import TURNS_A_WORKER
from service.observability.metric_types import follow
from service.observability.metrics import (
    ADMITTED_TOKENS,
    CAPACITY_TOKENS,
    IN_FLIGHT,
    QUEUED,
    QUEUED_LIMIT,
    SHED,
)
from service.observability.request_context import stage

INSIDE_SECONDS = 1.0
"""Time that the admitted work takes, about: enough to keep the batches of any engine full, and
short enough to wait for."""
SLICE_SECONDS = 0.25
"""Time that one slice of a large request takes one worker, about."""
LEAST_SLICE = 2_048
"""Smaller slices cost more than they gain: each is a call of its own."""
KEPT_PLACES = 8
"""Turns beyond those that are always granted: for first slices, and for scopes without a turn of
that kind (small request or slice) inside. As many large requests are admitted beyond those that one
scope may have, half of them of scopes with none inside."""
MAX_WAIT_PART = 0.8
"""The part of its maximum wait that a request may be expected to wait, because estimates err."""


class AdmissionQueue:
    """A gate over cost units, each about one prompt token.

    `capacity` is the cost that may be inside; None derives it from the measured throughput.
    `min_turns` returns the number of turns, and of large requests, that may be inside whatever they
    cost. At most `max_waiting` requests wait, each for at most `max_wait_seconds`.
    """

    def __init__(
        self,
        *,
        capacity: int | None,
        max_waiting: int,
        max_wait_seconds: float,
        min_turns: Callable[[], int] = lambda: TURNS_A_WORKER,
    ) -> None:
        self._fixed_capacity = capacity
        self._max_waiting = max_waiting
        self._max_wait = max_wait_seconds
        self._min_turns = min_turns
        self.throughput = ThroughputEstimator()
        self.add_cached = self.throughput.add_cached
        self.load = RequestLoad()
        self.on_change: Callable[[], None] = lambda: None  # called after turns have changed
        self._inside = Inside()
        self.resize = self._inside.resize
        self._queue = FairQueue()

        QUEUED_LIMIT.set(max_waiting)
        follow(CAPACITY_TOKENS, self.capacity)

    def capacity(self) -> float:
        """The cost that may be inside before further requests wait."""
        if self._fixed_capacity is not None:
            return self._fixed_capacity
        return (self.throughput.computed_rate or 0.0) * INSIDE_SECONDS

    def slice_cost(self) -> int:
        """The cost of a slice; a request of a larger cost is admitted slice by slice."""
        workers = max(1, self._min_turns() // TURNS_A_WORKER)
        return max(LEAST_SLICE, int(self.capacity() * SLICE_SECONDS / INSIDE_SECONDS / workers))

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return self._queue.newcomers

    def turns(self) -> tuple[int, bool]:
        """The number of turns that are granted and not given back, and whether others wait."""
        return self._inside.turns, bool(self._queue)

    def is_empty(self) -> bool:
        """True if no request waits or is inside, and nothing is counted for one."""
        return self._inside.is_empty() and self._queue.is_empty()

    def expect_room(self, scope: str = "") -> None:
        """Raise `Overloaded` if a small request of a scope would be refused now."""
        if self.waiting:
            wait = self._expected_wait(scope)
            if wait > MAX_WAIT_PART * self._max_wait:
                raise overloaded("expected_wait", wait)

        if self._is_full(scope) and self._queue.last_of_longest(scope) is None:
            raise overloaded("queue_full", self._expected_wait(scope))

    @asynccontextmanager
    async def admit(
        self,
        cost: int,
        deadline: float,
        scope: str = "",
        expected_part: ExpectedPart = everything,
        *,
        patient: bool = False,
    ) -> AsyncIterator[Admitted]:
        """Hold a request of `cost` units while the context lasts; set its `computed` before the end
        if it has been answered. Of its cost, `expected_part` is expected to be computed. A
        `patient` request waits until its deadline, whatever the bounds of the queue.

        Raises `Overloaded` where the queue is full or too slow, and `DeadlineExceeded` at
        `deadline` (event loop time).
        """
        price = partial(expected_cost, cost, expected_part)
        expected, slice_cost = price(), self.slice_cost()
        self.load.add(expected, asyncio.get_running_loop().time())
        kind = Kind.WHOLE if expected <= slice_cost else Kind.FIRST
        turn = Turn(scope, min(expected, slice_cost), kind, price if kind is Kind.WHOLE else None)
        with stage("admit"):
            await self._enter(turn, deadline, patient=patient)

        admitted = Admitted(self, turn, cost, expected_part)
        if turn in self._inside.large:
            self._inside.large[turn] = admitted
        IN_FLIGHT.inc()
        try:
            yield admitted
        finally:
            IN_FLIGHT.dec()
            self._inside.large.pop(turn, None)
            admitted.end()
            self._grant_turns()

    async def next_turn(self, scope: str, price: Callable[[], int]) -> Turn:
        """Wait for the turn of a further slice; it must be left. It is never refused, because its
        request is admitted."""
        turn = Turn(scope, price(), Kind.NEXT, price)
        self.throughput.mark_saturated()
        self._queue.add(turn)
        self._grant_turns()

        if not turn.granted.done():
            try:
                await turn.granted
            except BaseException:
                self._give_up(turn)
                raise
        return turn

    def leave(self, turn: Turn, computed: float | None) -> None:
        """Give a turn back; `computed` is the computed part of its work, None where it failed."""
        turn.ticket.computed = computed
        self.throughput.leave(turn.ticket, asyncio.get_running_loop().time())
        self._inside.remove(turn)
        self._grant_turns()

    async def _enter(self, turn: Turn, deadline: float, *, patient: bool) -> None:
        """Wait until a request's first turn is granted."""
        now = asyncio.get_running_loop().time()
        if now >= deadline:
            raise DeadlineExceeded

        self._queue.add(turn)
        self._grant_turns()
        if turn.granted.done():
            return

        if not patient:
            self._queue.remove(turn)
            self._make_room(turn, deadline - now)
            self._queue.add(turn)
        self._update_gauges()
        wait_until = deadline if patient else min(deadline, now + self._max_wait)
        try:
            async with asyncio.timeout_at(wait_until):
                await turn.granted
        except BaseException as error:
            self._give_up(turn)
            if not isinstance(error, TimeoutError):
                raise
            if wait_until == deadline:
                SHED.labels("deadline").inc()
                raise DeadlineExceeded from None
            wait = self._expected_wait(turn.scope, turn.kind)
            raise overloaded("queue_timeout", wait) from None

    def _give_up(self, turn: Turn) -> None:
        """Take a turn out of the queue, or give it back where it was granted at the same moment."""
        granted = turn.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self._inside.large.pop(turn, None)
            self.leave(turn, None)
        else:
            self._queue.remove(turn)
            self._grant_turns()

    def _make_room(self, turn: Turn, seconds: float) -> None:
        """Make room for one more waiting request, which has so many seconds, or raise `Overloaded`.

        In a full queue, the scope with most waiting requests loses its last one to a scope with
        fewer.
        """
        self.throughput.mark_saturated()
        wait = self._expected_wait(turn.scope, turn.kind)
        if wait > MAX_WAIT_PART * min(self._max_wait, seconds):
            self._update_gauges()
            raise overloaded("expected_wait", wait)
        if self.waiting < self._max_waiting:
            return

        last = self._queue.last_of_longest(turn.scope) if self._max_waiting else None
        if last is None:
            self._update_gauges()
            raise overloaded("queue_full", wait)

        self._queue.remove(last)
        if not last.granted.done():
            last_wait = self._expected_wait(last.scope, last.kind)
            last.granted.set_exception(overloaded("queue_full", last_wait))

    def _expected_wait(self, scope: str, kind: Kind = Kind.WHOLE) -> float:
        """Seconds until a turn of a scope that arrives now is granted, as throughput has it."""
        rate = self.throughput.admitted_rate
        if not rate:
            return 0.0

        ahead = self._queue.ahead(scope, kind, endless=lambda name: self._inside.large_of(name) > 0)
        excess = max(0.0, self._inside.used + ahead - self.capacity())
        if kind is Kind.WHOLE and self._fixed_capacity is None:
            # each scope has a kept place for one small request, beside everything that is inside
            before = self._inside.cost_of(scope, kind) + self._queue.lane_cost(scope, kind)
            excess = min(excess, float(before * self._inside.turns))
        if kind is Kind.FIRST and not self._inside.has_place(scope, self._min_turns(), KEPT_PLACES):
            # a place becomes free when the large request that is nearest to its end leaves
            left = [admitted.left for admitted in self._inside.large.values() if admitted]
            excess = max(excess, len(left) * min(left, default=0) + ahead)
        return excess / rate

    def _may_enter(self, turn: Turn) -> bool:
        if turn.kind is Kind.FIRST:
            has_place = self._inside.has_place(turn.scope, self._min_turns(), KEPT_PLACES)
            return has_place and self._is_open(kept=True)
        return self._is_open(kept=not self._inside.cost_of(turn.scope, turn.kind))

    def _grant_turns(self) -> None:
        """Grant turns while there is room."""
        while turn := self._queue.next_turn(self._may_enter):
            self._queue.serve(turn)
            turn.update_cost()
            self._inside.add(turn)
            self.load.granted += turn.cost
            self.throughput.enter(turn.ticket, asyncio.get_running_loop().time())
            turn.granted.set_result(None)

        if self._queue:
            self.throughput.mark_saturated()
        self._update_gauges()
        self.on_change()

    def _is_full(self, scope: str) -> bool:
        """True if a small request of a scope would have to wait, and no further one may wait."""
        if self.waiting < self._max_waiting:
            return False
        return self.waiting > 0 or not self._is_open(
            kept=not self._inside.cost_of(scope, Kind.WHOLE)
        )

    def _is_open(self, *, kept: bool) -> bool:
        """True if a turn may be granted; `kept` if it may take a kept place."""
        if self._fixed_capacity is not None:
            return self._inside.used < self._fixed_capacity or self._inside.turns < 1
        min_turns = self._min_turns() + (KEPT_PLACES if kept else 0)
        return self._inside.used < self.capacity() or self._inside.turns < min_turns

    def _update_gauges(self) -> None:
        QUEUED.set(self.waiting)
        ADMITTED_TOKENS.set(self._inside.used)
