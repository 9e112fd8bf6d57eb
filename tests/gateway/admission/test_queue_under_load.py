"""Ten times more load than a server can take, in virtual time: work done, waits, recovery,
fairness, all untuned."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable, Sequence

import pytest

from service.gateway.admission.queue import AdmissionQueue
from tests.gateway.load import Costs, Queues, Seen, Shared, Simulation
from tests.gateway.virtual_time import in_virtual_time

MAX_WAIT = 5.0
TIMES = 10
SECONDS = 30.0
SETTLED = 6.0
"""Figures count from here on: by now the queue has measured the throughput."""


def even(cost: int) -> Costs:
    return lambda dice: cost


def mixed(cost: int) -> Costs:
    """Most are small; one in twenty is twenty times as large as `cost`."""
    return lambda dice: (
        cost * 20 if dice.random() < 0.05 else max(1, int(dice.expovariate(1 / cost)))
    )


def gate(workers: int = 1) -> AdmissionQueue:
    return AdmissionQueue(
        capacity=None, max_waiting=256, max_wait_seconds=MAX_WAIT, min_turns=lambda: 2 * workers
    )


def mean(costs: Costs) -> float:
    return statistics.fmean(costs(random.Random(seed)) for seed in range(2_000))


SERVERS: dict[str, tuple[Callable[[], Shared | Queues], int, Costs]] = {
    "shared, even": (lambda: Shared(1e4), 1, even(500)),
    "shared, mixed": (lambda: Shared(1e5), 1, mixed(2_500)),
    "fast, with a latency": (lambda: Shared(1e6, least=0.05), 1, even(30_000)),
    "one after the other": (lambda: Queues(1e4, 1), 1, mixed(300)),
    "four workers": (lambda: Queues(1e5, 4), 4, mixed(2_000)),
    "slow, large requests": (lambda: Queues(4e3, 4), 4, even(4_000)),
}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("loop", ["open", "closed"])
def test_work_done_stays_what_it_can_be_and_those_admitted_wait_a_bounded_time(
    name: str, loop: str
) -> None:
    make, workers, costs = SERVERS[name]

    async def story() -> Simulation:
        simulation = Simulation(gate(workers), make())
        gap = mean(costs) / simulation.server.rate
        if loop == "open":
            await simulation.flood(costs, gap / TIMES, SECONDS)
        else:
            await simulation.besiege(int(TIMES * max(1, 2 / gap)) + TIMES * workers, costs, SECONDS)
        late = await simulation.visit(costs(random.Random(1)))
        assert late.admitted == late.came, "who comes after the load is let in at once"
        return simulation

    simulation = in_virtual_time(story())
    admitted = [each for each in simulation.seen if each.admitted is not None]
    refused = [each for each in simulation.seen if each.refused is not None]
    assert simulation.goodput(SETTLED, SECONDS) >= 0.9
    assert all(each.done for each in admitted)
    assert max(each.admitted - each.came for each in admitted if each.admitted) <= MAX_WAIT + 0.1
    settled = [each for each in refused if each.came >= SETTLED]
    at_once = [each for each in settled if each.refused == each.came]

    assert len(at_once) >= 0.8 * len(settled), "who will not be served is told so at once"
    assert all(each.retry_after and 1 <= each.retry_after <= 30 for each in refused)


@pytest.mark.parametrize("name", ["shared, even", "fast, with a latency", "four workers"])
def test_the_capacity_finds_a_second_of_work_and_stays_there(name: str) -> None:
    make, workers, costs = SERVERS[name]

    async def story() -> Simulation:
        simulation = Simulation(gate(workers), make())
        await simulation.flood(costs, mean(costs) / simulation.server.rate / TIMES, SECONDS)
        return simulation

    simulation = in_virtual_time(story())
    capacities = [
        each / simulation.server.rate
        for each in simulation.capacities[len(simulation.capacities) // 3 :]
    ]

    assert 0.7 < statistics.fmean(capacities) < 1.4
    assert statistics.pstdev(capacities) < 0.3 * statistics.fmean(capacities)


def done_share(group: Sequence[Seen]) -> float:
    """The share of some requests that were answered."""
    return sum(each.done is not None for each in group) / len(group)


def test_large_requests_are_served_as_often_as_small_ones() -> None:
    async def story() -> Simulation:
        simulation = Simulation(gate(), Shared(1e5))
        costs = mixed(2_500)
        await simulation.flood(costs, mean(costs) / simulation.server.rate / TIMES, 2 * SECONDS)
        return simulation

    seen = in_virtual_time(story()).seen
    large = [each for each in seen if each.cost == 50_000]
    small = [each for each in seen if each.cost < 50_000]
    shares = [done_share(large), done_share(small)]

    assert min(shares) > 0.5 * max(shares)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_loud_neighbour_takes_nothing_from_a_quiet_one(share: float) -> None:
    """The quiet scope needs less than its half: it gets all of it, with short waits."""

    async def story() -> Simulation:
        simulation = Simulation(gate(), Shared(1e4))
        async with asyncio.TaskGroup() as group:
            group.create_task(simulation.flood(even(500), 0.05 / TIMES, SECONDS, "loud"))
            group.create_task(simulation.flood(even(500), 0.05 / share, SECONDS, "quiet"))
        return simulation

    simulation = in_virtual_time(story())
    quiet = [each for each in simulation.seen if each.scope == "quiet" and each.came > SETTLED]

    assert all(each.done for each in quiet)
    assert statistics.fmean(each.admitted - each.came for each in quiet if each.admitted) < 1
    assert simulation.goodput(SETTLED, SECONDS) >= 0.9


def test_two_loud_neighbours_share_by_cost_not_by_requests() -> None:
    async def story() -> Simulation:
        simulation = Simulation(gate(), Shared(1e4))
        async with asyncio.TaskGroup() as group:
            group.create_task(simulation.flood(even(10_000), 0.1, 2 * SECONDS, "large"))
            group.create_task(simulation.flood(even(100), 1 / 300, 2 * SECONDS, "small"))
        return simulation

    simulation = in_virtual_time(story())
    large, small = (simulation.goodput(SETTLED, 2 * SECONDS, scope) for scope in ("large", "small"))

    assert large + small >= 0.9
    assert 0.4 < large / (large + small) < 0.6


def test_a_server_that_turns_slow_is_given_less() -> None:
    async def story() -> Simulation:
        simulation = Simulation(gate(), Shared(1e4))
        async with asyncio.TaskGroup() as group:
            group.create_task(simulation.flood(even(500), 0.05 / TIMES, 3 * SECONDS))
            await asyncio.sleep(SECONDS)
            simulation.server.rate /= 10
        return simulation

    simulation = in_virtual_time(story())
    later = [each for each in simulation.seen if each.came > 1.5 * SECONDS]

    assert simulation.goodput(1.5 * SECONDS, 3 * SECONDS) >= 0.9
    assert max(each.done - each.admitted for each in later if each.done and each.admitted) < 4


def test_answers_from_the_cache_do_not_pass_for_the_servers_speed() -> None:
    """Known pairs are quick; when they end, no more is let in than the server can take."""

    async def story() -> Simulation:
        simulation = Simulation(gate(), Shared(1e4))
        await simulation.flood(even(5_000), 0.01, SECONDS, computed=0.001)
        assert all(each.done for each in simulation.seen), (
            "they are far more than could be computed"
        )
        simulation.seen.clear()
        await simulation.flood(even(5_000), 0.05, SECONDS)
        return simulation

    simulation = in_virtual_time(story())
    assert simulation.goodput(SECONDS + SETTLED, 2 * SECONDS) >= 0.9
    assert (
        max(each.done - each.admitted for each in simulation.seen if each.done and each.admitted)
        < 3
    )


LARGE = 120_000
"""The cost that takes a server of 10,000 units per second twelve seconds: nothing may wait for two
of them."""


def beside_large_ones(
    scopes: tuple[str, ...], scope: str, server: Callable[[], Shared | Queues]
) -> list[Seen]:
    """The small requests of a scope, sent one after the other while large ones of `scopes` are
    answered."""

    async def story() -> Simulation:
        simulation = Simulation(gate(), server())
        await simulation.visit(1_000)  # by now the throughput is known
        async with asyncio.TaskGroup() as group:
            for each in scopes:
                group.create_task(simulation.visit(LARGE, each))
            await asyncio.sleep(0.5)
            for _ in range(30):
                await simulation.visit(200, scope)
                await asyncio.sleep(0.3)
        return simulation

    seen = in_virtual_time(story()).seen
    assert all(each.done for each in seen if each.cost == LARGE), (
        "none of the large ones was turned away"
    )
    return [each for each in seen if each.cost == 200]


@pytest.mark.parametrize(
    "server", [lambda: Shared(1e4), lambda: Queues(1e4, 1)], ids=["shared", "one after the other"]
)
@pytest.mark.parametrize(
    "scope", ["quiet", "loud", ""], ids=["of another tenant", "of the same tenant", "of nobody"]
)
def test_two_large_requests_shut_no_small_one_out(
    scope: str, server: Callable[[], Shared | Queues]
) -> None:
    """A small request waits for a slice, of whichever scope the large ones are; without slices each
    was refused."""
    small = beside_large_ones((scope if scope != "quiet" else "loud",) * 2, scope, server)
    assert len(small) == 30
    assert [each.refused for each in small] == [None] * 30
    waits = [each.admitted - each.came for each in small if each.admitted is not None]
    slices = 2.0 if scope != "quiet" else 1.0

    assert max(waits) <= slices * LONGEST_SLICE, waits


LONGEST_SLICE = 1.1
"""Seconds that a slice takes beside three others on a server that works on all at once."""


def test_a_tenant_with_large_requests_leaves_places_for_the_large_ones_of_others() -> None:
    """Two of one tenant are inside, its third waits; the first one of another is admitted at once,
    and each gets its half."""

    async def story() -> Simulation:
        simulation = Simulation(gate(), Shared(1e4))
        await simulation.visit(1_000)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(simulation.visit(LARGE, "loud"))
            await asyncio.sleep(1)
            group.create_task(simulation.visit(LARGE, "quiet"))
        return simulation

    seen = in_virtual_time(story()).seen[1:]
    first, second, third, quiet = seen
    assert (first.admitted, second.admitted) == (first.came, second.came)
    assert third.refused is not None, "twelve seconds are more than anybody waits"
    assert quiet.admitted is not None
    assert quiet.admitted - quiet.came <= LONGEST_SLICE
    ends = [each.done for each in (first, second) if each.done]

    assert quiet.done
    assert quiet.done < max(ends), "it has as much of the server as two of the other together"


def test_a_large_request_alone_keeps_the_server_busy() -> None:
    async def story() -> tuple[Simulation, float]:
        simulation = Simulation(gate(), Shared(1e4))
        seen = [await simulation.visit(LARGE) for _ in range(3)]
        return simulation, sum(each.done - each.came for each in seen if each.done)

    simulation, seconds = in_virtual_time(story())
    assert 3 * LARGE / simulation.server.rate / seconds >= 0.95
