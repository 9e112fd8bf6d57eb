"""How much work at once: a request is let in whole, by its estimated cost, waits a bounded time, or is turned away at the door.

How much may be inside follows from the pace at which work gets done (Little's law): as much as takes `INSIDE_SECONDS`, and never
less than some requests, so that no worker idles. Who would have to wait too long, by the same pace, is told so at once. The line
is fair over scopes (tenants): of those who wait, the scope that got least goes first.

Knows costs, not what causes them. Invariant: nobody is let in after its deadline, or while as much is inside as may be; each
scope is served in the order of its coming, and all that was held is given back, whatever ends a request.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.errors import DeadlineExceeded, Overloaded
from service.gateway.pace import Pace, Stay
from service.metrics import ADMITTED_TOKENS, CAPACITY_TOKENS, IN_FLIGHT, SHED, WAITING, WAITING_LIMIT
from service.telemetry import stage

INSIDE_SECONDS = 1.0
"""How long what is inside takes, about: enough to keep any engine's batches full, little enough to wait behind."""
BELIEVED = 0.8
"""Share of the time that one may wait which an expected wait may take: estimates err, and waiting in vain is worst."""
MAX_RETRY_AFTER = 30
Turn = asyncio.Future[None]


@dataclass(slots=True)
class _Queue:
    """Those of one scope who wait; `served` is the cost that the scope has been let in with, on the line's common scale."""

    served: float
    turns: deque[tuple[int, Turn]] = field(default_factory=deque)
    cost: int = 0


class Admission:
    """A gate over cost units (about one prompt token each).

    `capacity` fixes how much may be inside; by None it follows from the pace, and `always` says how many requests may be inside
    however large they are. At most `max_waiting` wait, `max_wait_seconds` at most.
    """

    def __init__(
        self, *, capacity: int | None, max_waiting: int, max_wait_seconds: float, always: Callable[[], int] = lambda: 2
    ) -> None:
        self._fixed = capacity
        self._max_waiting = max_waiting
        self._max_wait = max_wait_seconds
        self._always = always
        self._pace = Pace()
        self._used = 0
        self._inside = 0
        self._waiting = 0
        self._line: dict[str, _Queue] = {}
        self._served: dict[str, float] = {}
        self._scale = 0.0
        WAITING_LIMIT.set(max_waiting)
        CAPACITY_TOKENS.set_function(self.capacity)

    def capacity(self) -> float:
        """The cost that may be inside before others must wait."""
        return self._fixed if self._fixed is not None else (self._pace.work or 0.0) * INSIDE_SECONDS

    def expect_room(self, scope: str = "") -> None:
        """Raise `Overloaded` if whoever of a scope comes now would be turned away, whatever it costs."""
        if self._waiting and (wait := self._expected_wait(scope)) > BELIEVED * self._max_wait:
            raise _turned_away("wait_too_long", wait)
        full = self._waiting >= self._max_waiting and (self._waiting > 0 or not self._is_open())
        if full and self._longest(scope) is None:
            raise _turned_away("line_full", self._expected_wait(scope))

    @asynccontextmanager
    async def admit(self, cost: int, until: float, scope: str = "") -> AsyncIterator[Stay]:
        """Hold `cost` units while the context lasts; say in the stay's `computed` how much was new work.

        Raises `Overloaded` where the line is full or does not move, and `DeadlineExceeded` at `until` (event loop time).
        """
        clock = asyncio.get_running_loop().time
        with stage("admit"):
            await self._enter(cost, until, scope)
        stay = Stay(cost)
        self._pace.enter(stay, clock())
        IN_FLIGHT.inc()
        try:
            yield stay
        finally:
            IN_FLIGHT.dec()
            self._pace.leave(stay, clock())
            self._hold(-cost, -1)
            self._let_in()

    async def _enter(self, cost: int, until: float, scope: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= until:
            raise DeadlineExceeded
        if not self._waiting and self._is_open():
            self._hold(cost, 1)
            return
        self._make_room(scope, until - now)
        turn: Turn = asyncio.get_running_loop().create_future()
        self._queue_up(scope, cost, turn)
        leave_at = min(until, now + self._max_wait)
        try:
            async with asyncio.timeout_at(leave_at):
                await turn
        except BaseException as error:
            if not turn.done() or turn.cancelled():
                self._leave_line(scope, cost, turn)
            elif turn.exception() is None:  # let in at the very moment of giving up
                self._hold(-cost, -1)
            self._let_in()
            if isinstance(error, TimeoutError):
                raise self._waited_in_vain(scope, own_deadline=leave_at == until) from None
            raise

    def _make_room(self, scope: str, left: float) -> None:
        """See that one more of a scope may wait, or raise: a longer queue gives up its last for a shorter one."""
        self._pace.someone_waits()
        wait = self._expected_wait(scope)
        if wait > BELIEVED * min(self._max_wait, left):
            raise _turned_away("wait_too_long", wait)
        if self._waiting < self._max_waiting:
            return
        longest = self._longest(scope) if self._max_waiting else None
        if longest is None:
            raise _turned_away("line_full", wait)
        cost, turn = self._line[longest].turns[-1]
        self._leave_line(longest, cost, turn)
        if not turn.done():
            turn.set_exception(_turned_away("line_full", self._expected_wait(longest)))

    def _longest(self, scope: str) -> str | None:
        """The scope with most in the line, if that is more than this one has and one more."""
        longest = max(self._line, key=lambda name: len(self._line[name].turns), default=scope)
        own = len(self._line[scope].turns) if scope in self._line else 0
        return longest if longest in self._line and len(self._line[longest].turns) > own + 1 else None

    def _expected_wait(self, scope: str) -> float:
        """Seconds until the next of a scope gets in, by the pace of late: others get no more ahead of it than its own do."""
        own = self._line[scope].cost if scope in self._line else 0
        ahead = own + sum(min(queue.cost, own or _head(queue)) for name, queue in self._line.items() if name != scope)
        excess = max(0.0, self._used + ahead - self.capacity())
        return excess / self._pace.line if self._pace.line else 0.0

    def _is_open(self) -> bool:
        return self._used < self.capacity() or self._inside < (self._always() if self._fixed is None else 1)

    def _let_in(self) -> None:
        """Admit from the line while there is room, the scope first that was served least."""
        while self._line and self._is_open():
            scope = min(self._line, key=lambda name: self._line[name].served)
            queue = self._line[scope]
            cost, turn = queue.turns[0]
            if turn.done():  # it gave up, and has not come to leave yet
                self._leave_line(scope, cost, turn)
                continue
            self._scale = queue.served
            queue.served += cost
            self._leave_line(scope, cost, turn)
            self._hold(cost, 1)
            turn.set_result(None)
        if self._line:
            self._pace.someone_waits()

    def _queue_up(self, scope: str, cost: int, turn: Turn) -> None:
        if scope not in self._line:
            self._line[scope] = _Queue(max(self._scale, self._served.get(scope, 0.0)))
        queue = self._line[scope]
        queue.turns.append((cost, turn))
        queue.cost += cost
        self._waiting += 1
        WAITING.set(self._waiting)

    def _leave_line(self, scope: str, cost: int, turn: Turn) -> None:
        queue = self._line.get(scope)
        if queue is None or (cost, turn) not in queue.turns:
            return
        queue.turns.remove((cost, turn))
        queue.cost -= cost
        self._waiting -= 1
        WAITING.set(self._waiting)
        if not queue.turns:
            self._served[scope] = queue.served
            del self._line[scope]
        if not self._line:  # nobody waits: nobody is owed anything
            self._served.clear()

    def _hold(self, cost: int, requests: int) -> None:
        self._used += cost
        self._inside += requests
        ADMITTED_TOKENS.set(self._used)

    def _waited_in_vain(self, scope: str, *, own_deadline: bool) -> Exception:
        if own_deadline:
            SHED.labels("deadline").inc()
            return DeadlineExceeded()
        return _turned_away("waited_too_long", self._expected_wait(scope))


def _head(queue: _Queue) -> int:
    return queue.turns[0][0]


def _turned_away(reason: str, wait: float) -> Overloaded:
    """`Overloaded`, to be tried again when about as long as it would have waited is over, not by all at once."""
    SHED.labels(reason).inc()
    jittered = random.uniform(1, 3) + min(wait, MAX_RETRY_AFTER) * random.uniform(0.5, 1.5)
    return Overloaded(retry_after=min(MAX_RETRY_AFTER, math.ceil(jittered)))
