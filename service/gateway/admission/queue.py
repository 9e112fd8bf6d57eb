"""How much work at once: a request is admitted by its estimated cost, waits a bounded time, or is
turned away at the door.

How much may be inside follows from the pace at which work gets done (Little's law): as much as
takes `INSIDE_SECONDS`, and never less than some turns, so that no worker idles. A small request
takes one turn. A large one is admitted by its first slice, and takes a new turn for each further
one, in the same queue, so it never keeps others waiting for longer than a slice. The queue is fair
to scopes (tenants); a scope that has nothing inside finds some places kept for it. A request that
would have to wait too long, by the same pace, is told so at once.

The module knows costs, not what causes them. Invariant: nothing is admitted after its deadline, or
while as much is inside as may be; all that was held is given back, whatever ends a request; and a
request that was admitted is never turned away.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.errors import DeadlineExceeded, Overloaded
from service.gateway.admission.admitted import Admitted, Inside
from service.gateway.admission.fair_queue import FairQueue, Kind, Turn
from service.gateway.admission.throughput import ThroughputEstimator
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
"""How long what is inside takes, about: enough to keep any engine's batches full, little enough to
wait behind."""
SLICE_SECONDS = 0.25
"""How long one slice of a large request takes one worker, about."""
TURNS_A_WORKER = 2
"""Turns that are always granted for each worker: one being scored and one on its way."""
LEAST_SLICE = 2_048
"""Smaller slices cost more than they help: each is a call of its own."""
KEPT_PLACES = 8
"""Turns beyond those that are always granted: for scopes with no turn of that kind (small, or
slice) inside, and first slices. As many large requests beyond those that one scope may have; half
of these places are for scopes with none inside."""
BELIEVED = 0.8
"""Share of the time that one may wait which an expected wait may take: estimates err, and waiting
in vain is worst."""
MAX_RETRY_AFTER = 30


class AdmissionQueue:
    """A gate over cost units (about one prompt token each).

    `capacity` fixes how much may be inside; by None it follows from the pace, and `always` says how
    many turns may be inside however large they are, and how many large requests. At most
    `max_waiting` requests wait, `max_wait_seconds` at most.
    """

    def __init__(
        self,
        *,
        capacity: int | None,
        max_waiting: int,
        max_wait_seconds: float,
        always: Callable[[], int] = lambda: TURNS_A_WORKER,
    ) -> None:
        self._fixed = capacity
        self._max_waiting = max_waiting
        self._max_wait = max_wait_seconds
        self._always = always
        self._pace = ThroughputEstimator()
        self.note_known = self._pace.note_known
        self._inside = Inside()
        self._queue = FairQueue()
        QUEUED_LIMIT.set(max_waiting)
        CAPACITY_TOKENS.set_function(self.capacity)

    def capacity(self) -> float:
        """The cost that may be inside before others must wait."""
        return self._fixed if self._fixed is not None else (self._pace.work or 0.0) * INSIDE_SECONDS

    def slice_cost(self) -> int:
        """A request of a larger cost takes its turns slice by slice: each is a call to one of the
        workers."""
        workers = max(1, self._always() // TURNS_A_WORKER)
        return max(LEAST_SLICE, int(self.capacity() * SLICE_SECONDS / INSIDE_SECONDS / workers))

    def expect_room(self, scope: str = "") -> None:
        """Raise `Overloaded` if a small request of a scope would be turned away now."""
        waiting = self._queue.newcomers
        if waiting and (wait := self._expected_wait(scope)) > BELIEVED * self._max_wait:
            raise _overloaded("expected_wait", wait)
        full = waiting >= self._max_waiting and (
            waiting > 0 or not self._is_open(kept=not self._inside.cost_of(scope, Kind.WHOLE))
        )
        if full and self._queue.last_of_longest(scope) is None:
            raise _overloaded("queue_full", self._expected_wait(scope))

    @asynccontextmanager
    async def admit(self, cost: int, until: float, scope: str = "") -> AsyncIterator[Admitted]:
        """Hold a request of `cost` units while the context lasts; say in its `computed` how much
        was new work.

        Raises `Overloaded` where the queue is full or does not move, and `DeadlineExceeded` at
        `until` (event loop time).
        """
        most = self.slice_cost()
        turn = Turn(scope, min(cost, most), Kind.WHOLE if cost <= most else Kind.FIRST)
        with stage("admit"):
            await self._enter(turn, until)
        admitted = Admitted(self, turn, cost)
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

    async def next_turn(self, scope: str, cost: int) -> Turn:
        """Wait for a further slice's turn, which is to be left. It is not refused: its request has
        been admitted."""
        turn = Turn(scope, cost, Kind.NEXT)
        self._pace.mark_saturated()
        self._queue.add(turn)
        self._grant_turns()
        if not turn.granted.done():
            try:
                await turn.granted
            except BaseException:
                self._give_up(turn)
                raise
        return turn

    def resized(self, turn: Turn, cost: int) -> Turn:
        """A turn that is held, with another cost."""
        self._inside.resize(turn, cost)
        return turn

    def leave(self, turn: Turn, computed: float | None) -> None:
        """Give a turn back. `computed` says how much of it was new work; None: it came to
        nothing."""
        turn.stay.computed = computed
        self._pace.leave(turn.stay, asyncio.get_running_loop().time())
        self._inside.remove(turn)
        self._grant_turns()

    async def _enter(self, turn: Turn, until: float) -> None:
        now = asyncio.get_running_loop().time()
        if now >= until:
            raise DeadlineExceeded
        self._queue.add(turn)
        self._grant_turns()
        if turn.granted.done():
            return
        self._queue.remove(turn)
        self._make_room(turn, until - now)
        self._queue.add(turn)
        self._note_waiting()
        leave_at = min(until, now + self._max_wait)
        try:
            async with asyncio.timeout_at(leave_at):
                await turn.granted
        except BaseException as error:
            self._give_up(turn)
            if not isinstance(error, TimeoutError):
                raise
            if leave_at == until:
                SHED.labels("deadline").inc()
                raise DeadlineExceeded from None
            raise _overloaded("queue_timeout", self._expected_wait(turn.scope, turn.kind)) from None

    def _give_up(self, turn: Turn) -> None:
        """Take a turn out of the queue, or give it back where it was granted at this very
        moment."""
        if (
            turn.granted.done()
            and not turn.granted.cancelled()
            and turn.granted.exception() is None
        ):
            self._inside.large.pop(turn, None)
            self.leave(turn, None)
        else:
            self._queue.remove(turn)
            self._grant_turns()

    def _make_room(self, turn: Turn, left: float) -> None:
        """See that one more turn may wait, or raise: a scope with more in the queue gives up its
        last for one with less."""
        self._pace.mark_saturated()
        wait = self._expected_wait(turn.scope, turn.kind)
        if wait > BELIEVED * min(self._max_wait, left):
            self._note_waiting()
            raise _overloaded("expected_wait", wait)
        if self._queue.newcomers < self._max_waiting:
            return
        last = self._queue.last_of_longest(turn.scope) if self._max_waiting else None
        if last is None:
            self._note_waiting()
            raise _overloaded("queue_full", wait)
        self._queue.remove(last)
        if not last.granted.done():
            last.granted.set_exception(
                _overloaded("queue_full", self._expected_wait(last.scope, last.kind))
            )

    def _expected_wait(self, scope: str, kind: Kind = Kind.WHOLE) -> float:
        """Seconds until the next turn of a scope is granted, by the pace of late."""
        if not self._pace.line:
            return 0.0
        ahead = self._queue.ahead(scope, kind, endless=lambda name: self._inside.large_of(name) > 0)
        excess = max(0.0, self._inside.used + ahead - self.capacity())
        # one at a time has a kept place, beside all that is inside
        if kind is Kind.WHOLE and self._fixed is None:
            before = self._inside.cost_of(scope, kind) + self._queue.lane_cost(scope, kind)
            excess = min(excess, float(before * self._inside.turns))
        if kind is Kind.FIRST and not self._has_place(scope):
            left = [admitted.left for admitted in self._inside.large.values() if admitted]
            excess = max(excess, len(left) * min(left, default=0) + ahead)
        return excess / self._pace.line

    def _next(self) -> Turn | None:
        """The turn that is granted next, if there is one that may be."""
        for turn in list(self._queue.candidates()):
            if turn.granted.done():  # it gave up, and its task has not run yet
                self._queue.remove(turn)
                return self._next()
            if self._may_enter(turn):
                return turn
        return None

    def _may_enter(self, turn: Turn) -> bool:
        if turn.kind is Kind.FIRST:
            return self._has_place(turn.scope) and self._is_open(kept=True)
        return self._is_open(kept=not self._inside.cost_of(turn.scope, turn.kind))

    def _grant_turns(self) -> None:
        """Grant turns while there is room."""
        while turn := self._next():
            self._queue.serve(turn)
            self._inside.add(turn)
            self._pace.enter(turn.stay, asyncio.get_running_loop().time())
            turn.granted.set_result(None)
        if self._queue:
            self._pace.mark_saturated()
        self._note_waiting()

    def _is_open(self, *, kept: bool) -> bool:
        """Whether a turn may be granted, or one that may have a kept place."""
        if self._fixed is not None:
            return self._inside.used < self._fixed or self._inside.turns < 1
        always = self._always() + (KEPT_PLACES if kept else 0)
        return self._inside.used < self.capacity() or self._inside.turns < always

    def _has_place(self, scope: str) -> bool:
        return self._inside.has_place(scope, self._always(), KEPT_PLACES)

    def _note_waiting(self) -> None:
        QUEUED.set(self._queue.newcomers)
        ADMITTED_TOKENS.set(self._inside.used)


def _overloaded(reason: str, wait: float) -> Overloaded:
    """`Overloaded`, to be tried again when about as long as it would have waited is over, not by
    all at once."""
    SHED.labels(reason).inc()
    jittered = random.uniform(1, 3) + min(wait, MAX_RETRY_AFTER) * random.uniform(0.5, 1.5)
    return Overloaded(retry_after=min(MAX_RETRY_AFTER, math.ceil(jittered)))
