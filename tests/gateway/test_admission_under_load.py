"""Ten times more load than a server can take, in virtual time: work done, waits, recovery, fairness, all untuned."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable

import pytest

from service.gateway.admission import Admission
from tests.gateway.load import Costs, Queues, Shared, Simulation
from tests.gateway.virtual_time import in_virtual_time

MAX_WAIT = 5.0
TIMES = 10
SECONDS = 30.0
SETTLED = 6.0
"""From here on figures count: the gate has measured what the server can do."""


def even(cost: int) -> Costs:
    return lambda dice: cost


def mixed(cost: int) -> Costs:
    """Most are small; one in twenty is twenty times as large as `cost`."""
    return lambda dice: cost * 20 if dice.random() < 0.05 else max(1, int(dice.expovariate(1 / cost)))


def gate(workers: int = 1) -> Admission:
    return Admission(capacity=None, max_waiting=256, max_wait_seconds=MAX_WAIT, always=lambda: 2 * workers)


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
def test_work_done_stays_what_it_can_be_and_those_admitted_wait_a_bounded_time(name: str, loop: str) -> None:
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
    capacities = [each / simulation.server.rate for each in simulation.capacities[len(simulation.capacities) // 3 :]]
    assert 0.7 < statistics.fmean(capacities) < 1.4
    assert statistics.pstdev(capacities) < 0.3 * statistics.fmean(capacities)


def test_large_requests_are_served_as_often_as_small_ones() -> None:
    async def story() -> Simulation:
        simulation = Simulation(gate(), Shared(1e5))
        costs = mixed(2_500)
        await simulation.flood(costs, mean(costs) / simulation.server.rate / TIMES, 2 * SECONDS)
        return simulation

    seen = in_virtual_time(story()).seen
    large, small = [each for each in seen if each.cost == 50_000], [each for each in seen if each.cost < 50_000]
    shares = [sum(each.done is not None for each in group) / len(group) for group in (large, small)]
    assert min(shares) > 0.5 * max(shares)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_loud_neighbour_takes_nothing_from_a_quiet_one(share: float) -> None:
    """The quiet one wants less than its half: it gets all of it, and its waits are short."""

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
        assert all(each.done for each in simulation.seen), "they are far more than could be computed"
        simulation.seen.clear()
        await simulation.flood(even(5_000), 0.05, SECONDS)
        return simulation

    simulation = in_virtual_time(story())
    assert simulation.goodput(SECONDS + SETTLED, 2 * SECONDS) >= 0.9
    assert max(each.done - each.admitted for each in simulation.seen if each.done and each.admitted) < 3
