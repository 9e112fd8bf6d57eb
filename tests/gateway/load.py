"""Simulated servers behind an admission queue, with more load than they can take.

Time is virtual."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from msgspec import structs

from service.errors import DeadlineExceeded, Overloaded
from service.gateway.admission.admitted import Admitted
from service.gateway.admission.computed_parts import ComputedParts
from service.gateway.admission.queue import AdmissionQueue
from service.gateway.scoring import CHUNKS_AT_ONCE
from tests.gateway.stand_in import INFO

STEP = 0.01
Costs = Callable[[random.Random], int]
DOCUMENT_FIRST = structs.replace(INFO, cacheable_side="document")


class Shared:
    """One engine that divides `rate` cost units per second among all requests inside; each takes
    `least` seconds or more."""

    def __init__(self, rate: float, least: float = 0.0) -> None:
        self.rate, self.least = rate, least
        self.workers_in_all = 1
        self.jobs: dict[object, float] = {}
        self.changed = asyncio.Event()

    def seconds_left(self) -> float:
        """The time that the work inside takes."""
        return sum(self.jobs.values()) / self.rate

    async def serve(self, cost: int) -> None:
        begun = asyncio.get_running_loop().time()
        job = object()
        self.jobs[job] = cost
        try:
            while self.jobs[job] > 0:
                self.jobs[job] -= self.rate * STEP / len(self.jobs)
                await asyncio.sleep(STEP)
        finally:
            del self.jobs[job]
        await asyncio.sleep(begun + self.least - asyncio.get_running_loop().time())


class Queues:
    """Workers that serve one request at a time each."""

    def __init__(self, rate: float, workers: int) -> None:
        self.rate = rate
        self.workers = [asyncio.Lock() for _ in range(workers)]
        self.waiting = [0] * workers
        self.workers_in_all = workers

    async def serve(self, cost: int) -> None:
        index = self.waiting.index(min(self.waiting))
        self.waiting[index] += 1
        try:
            async with self.workers[index]:
                await asyncio.sleep(cost / self.rate * len(self.workers))
        finally:
            self.waiting[index] -= 1


@dataclass(slots=True)
class Seen:
    """One request: the times of its arrival and its end, and its result."""

    cost: int
    scope: str
    came: float
    admitted: float | None = None
    done: float | None = None
    refused: float | None = None
    retry_after: int | None = None


@dataclass(slots=True)
class Simulation:
    """An admission queue, a server behind it, and a record of all requests."""

    admission: AdmissionQueue
    server: Shared | Queues
    seen: list[Seen] = field(default_factory=list)
    capacities: list[float] = field(default_factory=list)
    patience: float = 60.0
    parts: ComputedParts = field(default_factory=ComputedParts)

    async def visit(
        self, cost: int, scope: str = "", computed: float = 1.0, reused: float = 0.0
    ) -> Seen:
        """Send one request: a part of its cost is `computed` and not cached, and a part of that is
        `reused` by the server."""
        now = asyncio.get_running_loop().time
        seen = Seen(cost, scope, now())
        self.seen.append(seen)
        try:
            self.admission.expect_room(scope)
            expected = partial(self.parts.expected, DOCUMENT_FIRST, scope)
            async with self.admission.admit(
                cost, now() + self.patience, scope, expected
            ) as admitted:
                seen.admitted = now()
                await self._serve(admitted, max(1, int(cost * computed)), reused)
                admitted.computed = computed
            seen.done = now()
            self.capacities.append(self.admission.capacity())
        except (Overloaded, DeadlineExceeded) as error:
            seen.refused, seen.retry_after = now(), error.retry_after
        return seen

    async def _serve(self, admitted: Admitted, work: int, reused: float) -> None:
        """Do a request's work in slices, four at a time for each worker, as `Scoring` does."""

        async def take(pieces: Iterator[int]) -> None:
            for cost in pieces:
                async with admitted.turn(cost) as done:
                    await self.server.serve(max(1, round(cost * (1 - reused))))
                    done.computed = self.parts.add(
                        DOCUMENT_FIRST, admitted.scope, cost, int(cost * reused)
                    )

        def slices() -> Iterator[int]:
            left = work
            while left > 0:
                yield (cost := min(left, admitted.slice_cost))
                left -= cost

        pieces = slices()
        async with asyncio.TaskGroup() as group:
            for _ in range(CHUNKS_AT_ONCE * self.server.workers_in_all):
                group.create_task(take(pieces))

    async def flood(
        self, costs: Costs, gap: float, seconds: float, scope: str = "", **parts: float
    ) -> None:
        """Send requests with `gap` seconds between them on average, however they end; `parts` of
        their costs are computed or reused."""
        dice = random.Random(scope or "flood")
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            while asyncio.get_running_loop().time() < until:
                group.create_task(self.visit(costs(dice), scope, **parts))
                await asyncio.sleep(dice.expovariate(1 / gap))

    async def besiege(self, callers: int, costs: Costs, seconds: float, scope: str = "") -> None:
        """Send requests from so many callers without a pause; a refused caller waits for the
        `Retry-After`."""
        until = asyncio.get_running_loop().time() + seconds

        async def call(number: int) -> None:
            dice = random.Random(f"{scope}{number}")
            while asyncio.get_running_loop().time() < until:
                seen = await self.visit(costs(dice), scope)
                await asyncio.sleep(seen.retry_after or 0)

        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(call(number))

    def goodput(self, since: float, until: float, scope: str | None = None) -> float:
        """The cost answered in a period, as a share of the cost that the server can do in it."""
        done = sum(
            each.cost
            for each in self.seen
            if each.done and since <= each.done < until and scope in (None, each.scope)
        )
        return done / (self.server.rate * (until - since))
