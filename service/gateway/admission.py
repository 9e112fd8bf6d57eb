"""How much work at once: a request is let in whole, by its estimated cost, or turned away at the door.

Knows costs, not what causes them. Invariant: the sum of admitted costs never exceeds the capacity, except that a request larger
than the capacity is admitted alone; what waits, waits in order, and neither long nor in a long line.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import Overloaded
from service.telemetry import IN_FLIGHT, SHED, stage


class Admission:
    """A counting gate over cost units (about one prompt token each)."""

    def __init__(self, *, capacity: int, max_waiting: int, max_wait_seconds: float) -> None:
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._max_wait = max_wait_seconds
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def admit(self, cost: int, until: float) -> AsyncIterator[None]:
        """Hold `cost` units while the context lasts; raises `Overloaded` where the line is full or does not move."""
        cost = min(cost, self._capacity)
        with stage("admit"):
            await self._enter(cost, until)
        IN_FLIGHT.inc()
        try:
            yield
        finally:
            IN_FLIGHT.dec()
            self._used -= cost
            self._let_in()

    async def _enter(self, cost: int, until: float) -> None:
        if not self._waiting and self._used + cost <= self._capacity:
            self._used += cost
            return
        if sum(not turn.done() for _, turn in self._waiting) >= self._max_waiting:
            SHED.labels("line_full").inc()
            raise Overloaded
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((cost, turn))
        try:
            async with asyncio.timeout_at(min(until, asyncio.get_running_loop().time() + self._max_wait)):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # let in at the very moment of giving up
                self._used -= cost
            turn.cancel()
            self._let_in()
            if isinstance(error, TimeoutError):
                SHED.labels("waited_too_long").inc()
                raise Overloaded from None
            raise

    def _let_in(self) -> None:
        """Admit from the head of the line while there is room; those who gave up are passed over."""
        while self._waiting and (self._waiting[0][1].done() or self._used + self._waiting[0][0] <= self._capacity):
            cost, turn = self._waiting.popleft()
            if not turn.done():
                self._used += cost
                turn.set_result(None)
