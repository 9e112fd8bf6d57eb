"""Background work beside requests, in virtual time: requests are answered as fast as without it,
and it does what requests leave, even under an overload."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from service.gateway.admission.background import LEAST_SHARE, BackgroundQueue, BackgroundWork
from tests.gateway.admission.test_queue_under_load import even, gate, mean, mixed
from tests.gateway.load import Costs, Queues, Shared, Simulation
from tests.gateway.virtual_time import in_virtual_time

SECONDS = 120.0
SETTLED = 20.0


class ByCost(Queues):
    """Workers that serve one request at a time each; the one with the least cost is next, as in the
    gateway's pool."""

    async def serve(self, cost: int) -> None:
        index = self.waiting.index(min(self.waiting))
        self.waiting[index] += cost
        try:
            async with self.workers[index]:
                await asyncio.sleep(cost / self.rate * len(self.workers))
        finally:
            self.waiting[index] -= cost


@dataclass(slots=True)
class Bulk:
    """Background work without an end, by scope: the cost done since the figures count."""

    background: BackgroundQueue
    server: Shared | Queues
    line_cost: int
    done: dict[str, int]

    async def work(self, scope: str, lines: int) -> None:
        """Do lines, so many at a time."""
        turns = BackgroundWork(self.background, scope)
        self.done[scope] = 0

        async def lines_one_by_one() -> None:
            while True:
                left = self.line_cost
                while left > 0:
                    cost = min(left, turns.slice_cost)
                    async with turns.turn(cost):
                        await self.server.serve(cost)
                    left -= cost
                    if asyncio.get_running_loop().time() > SETTLED:
                        self.done[scope] += cost

        async with asyncio.TaskGroup() as group:
            for _ in range(lines):
                group.create_task(lines_one_by_one())


def p99(simulation: Simulation) -> float:
    waits = [seen.done - seen.came for seen in simulation.seen if seen.done and seen.came > SETTLED]
    return statistics.quantiles(waits, n=100)[98]


def run(
    make: Callable[[], Shared | Queues],
    workers: int,
    costs: Costs,
    load: float,
    *scopes: str,
) -> tuple[Simulation, Bulk]:
    """Requests that take a part `load` of the server's rate, beside background work of scopes."""
    server = make()
    admission = gate(workers)
    simulation = Simulation(admission, server)
    bulk = Bulk(BackgroundQueue(admission, lambda: workers), server, 3_000, {})

    async def story() -> None:
        works = [asyncio.create_task(bulk.work(scope, 8 * workers)) for scope in scopes]
        await simulation.flood(costs, mean(costs) / server.rate / load, SECONDS)
        for work in works:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        await asyncio.sleep(1)
        assert bulk.background.is_empty()
        assert admission.is_empty()

    in_virtual_time(story())
    return simulation, bulk


SERVERS: dict[str, tuple[Callable[[], Shared | Queues], int, Costs]] = {
    "one after the other": (lambda: Queues(1e4, 1), 1, even(600)),
    "one after the other, mixed": (lambda: Queues(1e4, 1), 1, mixed(300)),
    "four workers": (lambda: ByCost(4e4, 4), 4, even(600)),
    "shared": (lambda: Shared(1e4), 1, even(600)),
}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("load", [0.2, 0.6])
def test_requests_are_as_fast_as_without_it_and_it_uses_what_they_leave(
    name: str, load: float
) -> None:
    calm, _ = run(*SERVERS[name], load)
    beside, bulk = run(*SERVERS[name], load, "bulk")
    left = (1 - load) * beside.server.rate * (SECONDS - SETTLED)
    assert p99(beside) <= 1.3 * p99(calm)
    assert bulk.done["bulk"] >= 0.5 * left


def test_under_an_overload_it_gets_a_small_part_and_requests_nearly_all() -> None:
    beside, bulk = run(lambda: Queues(1e4, 1), 1, even(600), 3.0, "bulk")
    part = bulk.done["bulk"] / (beside.server.rate * (SECONDS - SETTLED))
    assert LEAST_SHARE / 2 <= part <= 2 * LEAST_SHARE
    assert beside.goodput(SETTLED, SECONDS) >= 0.85


def test_scopes_share_it_equally_whatever_they_have_waiting() -> None:
    _, bulk = run(lambda: Queues(1e4, 1), 1, even(600), 0.3, "many", "few")
    assert bulk.done["few"] == pytest.approx(bulk.done["many"], rel=0.1)


def test_what_is_cancelled_while_it_waits_or_works_leaves_nothing_behind() -> None:
    admission = gate()
    background = BackgroundQueue(admission, lambda: 1)
    turns = BackgroundWork(background, "")

    async def forever() -> None:
        async with turns.turn(200):
            await asyncio.Event().wait()

    async def story() -> None:
        works = [asyncio.create_task(forever()) for _ in range(10)]
        await asyncio.sleep(1)
        assert not background.is_empty()
        for work in reversed(works):
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        assert background.is_empty()

    in_virtual_time(story())
