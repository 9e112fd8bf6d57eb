"""The background queue: turns of background work, granted where requests leave room.

A request that arrives finds at most one background turn under way on each worker, and such a turn
costs a fraction of an average request. Depends on costs and on an admission queue's turns, not on
what is scored. Invariants: no request waits in the admission queue because of background work;
background work that waits gets at least `LEAST_SHARE` of the cost that requests get, so that
it goes on under load; it is never refused for load.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from service.gateway.admission.admitted import Inside, Work
from service.gateway.admission.computed_parts import ExpectedPart, everything, expected_cost
from service.gateway.admission.fair_queue import FairQueue, Kind, Turn
from service.gateway.admission.queue import AdmissionQueue
from service.gateway.admission.worker_turns import TURNS_A_WORKER

LEAST_SHARE = 0.05
"""Background work that waits is granted this part of the cost of requests, whatever their load."""
PART_OF_REQUEST = 0.25
"""The cost of a background turn, as a part of an average request's."""
QUIET_SECONDS = 60.0
"""Time without a request after which a background turn need not be small beside requests, and a
worker is given a second one while it works on the first."""
SLICE_SECONDS = 0.05
"""Time that a background turn takes one worker at most, about."""
LEAST_SLICE = 128
"""A smaller turn has no room for one pair."""


class BackgroundQueue:
    """The background turns that wait, and those that are granted, beside an admission queue.

    `workers` returns the number of ready workers.
    """

    def __init__(self, admission: AdmissionQueue, workers: Callable[[], int]) -> None:
        self._admission = admission
        self._workers = workers
        self._queue = FairQueue()
        self._inside = Inside()
        self._owed = 0.0
        """The cost that may be granted whatever requests there are."""
        self._counted = 0
        """The cost granted to requests that `_owed` includes."""
        admission.on_change = self._grant_turns

    def is_empty(self) -> bool:
        """True if nothing waits or is inside."""
        return self._queue.is_empty() and self._inside.is_empty()

    def slice_cost(self) -> int:
        """The cost that a turn should have at most."""
        load = self._admission.load
        cost = self._admission.capacity() * SLICE_SECONDS / max(1, self._workers())
        if not load.is_quiet(_now(), QUIET_SECONDS):
            cost = min(cost, load.mean_cost * PART_OF_REQUEST)
        return max(LEAST_SLICE, int(cost))

    @asynccontextmanager
    async def turn(
        self, scope: str, cost: int, expected_part: ExpectedPart = everything
    ) -> AsyncIterator[Work]:
        """Wait for a turn of some cost, of which a part is expected to be computed, and hold it
        while the context lasts."""
        price = partial(expected_cost, cost, expected_part)
        turn = Turn(scope, price(), Kind.NEXT, price)
        self._queue.add(turn)
        self._grant_turns()
        try:
            await turn.granted
        except BaseException:
            self._give_up(turn)
            raise

        computed, work = None, Work()
        try:
            yield work
            computed = cost * work.computed / turn.cost
        finally:
            self._leave(turn, computed)

    def _give_up(self, turn: Turn) -> None:
        """Take a turn out of the queue, or give it back where it was granted at the same moment."""
        if turn.granted.done() and not turn.granted.cancelled():
            self._leave(turn, None)
        else:
            self._queue.remove(turn)
            self._grant_turns()

    def _leave(self, turn: Turn, computed: float | None) -> None:
        turn.ticket.computed = computed
        self._admission.throughput.leave(turn.ticket, _now())
        self._inside.remove(turn)
        self._grant_turns()

    def _grant_turns(self) -> None:
        """Grant turns while there is room."""
        while turn := self._queue.next_turn(self._may_enter):
            self._queue.serve(turn)
            turn.update_cost()
            self._inside.add(turn)
            self._owed = max(0.0, self._owed - turn.cost)
            self._admission.throughput.enter(turn.ticket, _now())
            turn.granted.set_result(None)

    def _may_enter(self, turn: Turn) -> bool:
        if self._count_owed(turn.cost) >= turn.cost:
            return True

        load, workers = self._admission.load, max(1, self._workers())
        requests_inside, requests_wait = self._admission.turns()
        turns_a_worker = TURNS_A_WORKER if load.is_quiet(_now(), QUIET_SECONDS) else 1
        room = turns_a_worker * workers - requests_inside - self._inside.turns
        return room > 0 and not requests_wait

    def _count_owed(self, next_cost: int) -> float:
        """The cost that is owed for what requests were granted; it does not add up to more than
        one turn, or a second's part."""
        granted = self._admission.load.granted
        most = max(float(next_cost), LEAST_SHARE * self._admission.capacity())
        self._owed = min(most, self._owed + LEAST_SHARE * (granted - self._counted))
        self._counted = granted
        return self._owed


class BackgroundWork:
    """The turns of one scope's background work, of whose cost `expected_part` is expected to be
    computed."""

    is_background = True
    prefixes_a_slice = 1
    """The cost of a slice may be this many times that of its prefix."""

    def __init__(
        self, queue: BackgroundQueue, scope: str, expected_part: ExpectedPart = everything
    ) -> None:
        self.scope = scope
        self.expected_part = expected_part
        self._queue = queue

    @property
    def slice_cost(self) -> int:
        return int(self._queue.slice_cost() / self.expected_part())

    def turn(self, cost: int) -> AbstractAsyncContextManager[Work]:
        """Wait for a turn of some cost, and hold it while the context lasts."""
        return self._queue.turn(self.scope, cost, self.expected_part)


def _now() -> float:
    return asyncio.get_running_loop().time()
