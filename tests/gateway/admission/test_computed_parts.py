"""The computed part of prompts: learned by model and scope, and what admission makes of it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from service.gateway.admission.computed_parts import (
    FEW_TOKENS,
    LEAST_PART,
    MANY_TOKENS,
    MAX_PARTS,
    ComputedParts,
)
from service.gateway.admission.queue import AdmissionQueue
from tests.gateway.load import DOCUMENT_FIRST, Seen, Shared, Simulation
from tests.gateway.stand_in import INFO, soon
from tests.gateway.virtual_time import in_virtual_time


def learned(*reused: float, tokens: int = FEW_TOKENS) -> ComputedParts:
    """Parts after replies of so many tokens, of each of which a part was reused."""
    parts = ComputedParts()
    for each in reused:
        parts.add(DOCUMENT_FIRST, "", tokens, int(tokens * each))
    return parts


def test_all_is_expected_to_be_computed_until_replies_tell() -> None:
    parts = learned()
    assert parts.expected(DOCUMENT_FIRST, "") == 1
    assert parts.add(DOCUMENT_FIRST, "", 100, 80) == pytest.approx(0.2)
    assert 0.99 < parts.expected(DOCUMENT_FIRST, "") < 1


def test_the_part_falls_with_many_tokens_and_rises_with_few() -> None:
    enough = 5 * MANY_TOKENS // FEW_TOKENS
    hot = learned(*[0.6] * enough)
    assert hot.expected(DOCUMENT_FIRST, "") == pytest.approx(0.4, abs=0.01)
    assert learned(*[0.99] * enough).expected(DOCUMENT_FIRST, "") == LEAST_PART

    hot.add(DOCUMENT_FIRST, "", FEW_TOKENS, 0)
    assert hot.expected(DOCUMENT_FIRST, "") > 0.75


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1)), max_size=20))
def test_the_part_is_within_its_bounds(replies: list[tuple[int, float]]) -> None:
    parts = ComputedParts()
    for tokens, reused in replies:
        assert 0 <= parts.add(DOCUMENT_FIRST, "", tokens, int(tokens * reused)) <= 1
        assert LEAST_PART <= parts.expected(DOCUMENT_FIRST, "") <= 1


@pytest.mark.parametrize("side", ["query", "none"])
def test_models_whose_prompts_do_not_begin_with_the_document_are_computed(side: str) -> None:
    """The cost of a query that pairs share has its reuse in it already."""
    parts, model = ComputedParts(), structs.replace(INFO, cacheable_side=side)
    for _ in range(100):
        assert parts.add(model, "", FEW_TOKENS, FEW_TOKENS // 2) == 1
    assert parts.expected(model, "") == 1


def test_a_scope_and_a_model_learn_from_their_own_replies_alone() -> None:
    parts = ComputedParts()
    for _ in range(100):
        parts.add(DOCUMENT_FIRST, "hot", FEW_TOKENS, FEW_TOKENS // 2)
    assert parts.expected(DOCUMENT_FIRST, "hot") < 0.6
    assert parts.expected(DOCUMENT_FIRST, "cold") == 1
    assert parts.expected(structs.replace(DOCUMENT_FIRST, model="n"), "hot") == 1


def test_parts_of_many_scopes_are_forgotten_those_of_the_last_replies_last() -> None:
    parts = ComputedParts()
    for _ in range(100):
        parts.add(DOCUMENT_FIRST, "busy", FEW_TOKENS, FEW_TOKENS // 2)
    for number in range(2 * MAX_PARTS):
        parts.add(DOCUMENT_FIRST, str(number), FEW_TOKENS, FEW_TOKENS // 2)
        if number % (MAX_PARTS // 2) == 0:
            parts.add(DOCUMENT_FIRST, "busy", FEW_TOKENS, FEW_TOKENS // 2)
    assert parts.expected(DOCUMENT_FIRST, "busy") < 0.6
    assert parts.expected(DOCUMENT_FIRST, "0") == 1


async def test_a_request_is_admitted_for_the_part_and_measured_by_what_was_computed() -> None:
    admission = AdmissionQueue(capacity=1_000, max_waiting=0, max_wait_seconds=1)
    async with admission.admit(1_000, soon(), expected_part=lambda: 0.5) as first:
        async with admission.admit(1_000, soon(), expected_part=lambda: 0.5) as second:
            assert second.slice_cost >= 2 * 2_048
            async with second.turn(600) as work:
                work.computed = 0.1
            async with second.turn(400) as work:
                work.computed = 0.6
            second.computed = 1.0
            await asyncio.sleep(0.11)  # the least time of a sample
        async with first.turn(1_000) as work:
            pass
        first.computed = 1.0
    rates = admission.throughput
    assert rates.admitted_rate is not None
    assert rates.computed_rate is not None
    assert rates.computed_rate / rates.admitted_rate == pytest.approx((300 + 1_000) / (500 + 500))


HOT = 0.9
SECONDS = 6.0


def queue() -> AdmissionQueue:
    return AdmissionQueue(capacity=None, max_waiting=256, max_wait_seconds=5, min_turns=lambda: 2)


def answered(seen: list[Seen], since: float) -> int:
    """The cost of requests that were answered within so many seconds."""
    return sum(each.cost for each in seen if each.done and since < each.done < since + SECONDS)


def test_hot_documents_are_admitted_more_and_cold_ones_after_them_do_not_overrun() -> None:
    """A server of 10,000 units a second, with several times as much to do, of which at first 0.9
    are reused: ten times as much is answered. When all documents are cold at once, the work inside
    is that of a few seconds for a few seconds, and then what it is without reuse."""

    async def story() -> None:
        server, now = Shared(1e4), asyncio.get_running_loop().time
        simulation = Simulation(queue(), server)
        seconds_inside: list[tuple[float, float]] = []

        async def watch() -> None:
            while True:
                seconds_inside.append((now(), server.seconds_left()))
                await asyncio.sleep(0.1)

        watcher, began = asyncio.create_task(watch()), now()
        await simulation.flood(lambda dice: 2_000, 0.01, SECONDS, reused=HOT)
        hot_ends = now()
        assert answered(simulation.seen, began + SECONDS / 4) > 0.6 * SECONDS * 1e5

        await simulation.flood(lambda dice: 2_000, 0.05, 2 * SECONDS)
        watcher.cancel()
        cold = [(time - hot_ends, seconds) for time, seconds in seconds_inside if time > hot_ends]
        assert max(seconds for _, seconds in cold) <= 1 / LEAST_PART + 0.5
        settled = [seconds for time, seconds in cold if SECONDS < time < 2 * SECONDS]
        assert sum(settled) / len(settled) < 1

    in_virtual_time(story())


def test_a_tenant_with_cold_documents_takes_nothing_from_one_with_hot_ones() -> None:
    """Both want all of the server; each gets half of what it can compute."""

    async def story() -> Simulation:
        simulation = Simulation(queue(), Shared(1e4))
        async with asyncio.TaskGroup() as group:
            flood = simulation.flood
            group.create_task(flood(lambda dice: 300, 0.005, 2 * SECONDS, "hot", reused=0.75))
            group.create_task(flood(lambda dice: 300, 0.015, 2 * SECONDS, "cold"))
        return simulation

    seen = in_virtual_time(story()).seen
    hot, cold = (
        answered([each for each in seen if each.scope == scope], SECONDS)
        for scope in ("hot", "cold")
    )
    assert 3 * cold < hot < 5 * cold
