"""Retries within their budget, and hedges only where a second worker is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.responses import Response

from service.errors import NoWorker, Overloaded, RerankError, WorkerFailed
from service.gateway.circuit_breaker import RetryBudget
from service.gateway.fleet.dispatch import RETRY_RESERVE, RETRY_SHARE, RetryPolicy
from service.wire import ScoreCall, ScoreReply
from tests.gateway.fleet.test_client import refuses, says
from tests.gateway.fleet.test_pool import wait_until
from tests.gateway.stand_in import (
    CALL,
    INFO,
    Answer,
    StandIn,
    ask,
    good,
    key_for,
    monitored,
    never,
    retry_policy,
    scored,
    soon,
)

CALLS = 1_000


def asked(stand_ins: Sequence[StandIn]) -> int:
    return sum(len(each.calls) for each in stand_ins)


@pytest.mark.parametrize("error", [WorkerFailed, Overloaded, NoWorker])
async def test_where_everything_fails_retries_stay_within_their_share(
    error: type[RerankError],
) -> None:
    stand_ins = [StandIn(refuses(error)) for _ in range(3)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        for number in range(CALLS):
            with pytest.raises((error, NoWorker)):
                await ask(workers, key=b"%d" % number)
            if error is NoWorker:
                await wait_until(workers.ready)
    assert CALLS * 0.9 <= asked(stand_ins) <= CALLS * (1 + RETRY_SHARE) + RETRY_RESERVE


async def test_where_every_other_call_fails_so_that_no_breaker_opens_they_do_too() -> None:
    stand_ins = [StandIn(good) for _ in range(2)]

    def every_other(stand_in: StandIn) -> Answer:
        async def answer(call: ScoreCall) -> Response:
            return await (good(call) if len(stand_in.calls) % 2 else says(500, b"")(call))

        return answer

    for each in stand_ins:
        each.answer = every_other(each)
    failed = 0

    async with monitored(*(each.client for each in stand_ins), retries=retry_policy()) as workers:
        for number in range(CALLS):
            try:
                await ask(workers, key=b"%d" % number)
            except WorkerFailed:
                failed += 1
    extra = asked(stand_ins) - CALLS

    assert RETRY_RESERVE <= extra <= CALLS * RETRY_SHARE + RETRY_RESERVE
    assert 0 < failed < CALLS / 2, "retries did what they could"


async def test_all_that_a_worker_had_when_it_died_is_made_good() -> None:
    release = asyncio.Event()

    async def dies(call: ScoreCall) -> Response:
        await release.wait()
        return Response(status_code=500)

    async def lives(call: ScoreCall) -> Response:
        await release.wait()
        return await good(call)

    doomed, other = StandIn(dies), StandIn(lives)

    async with monitored(doomed.client, other.client) as workers:
        key = key_for(doomed.client, other.client)
        waiting = [asyncio.create_task(ask(workers, key=key)) for _ in range(60)]
        await wait_until(lambda: asked([doomed, other]) == len(waiting))
        release.set()

        assert all(
            reply.pairs == [scored(0), scored(1)] for reply in await asyncio.gather(*waiting)
        )

    assert len(doomed.calls) > 10


async def test_a_call_without_budget_is_made_once() -> None:
    stand_ins = [StandIn(says(500, b"")), StandIn(good)]
    clients = [each.client for each in stand_ins]
    async with monitored(
        *clients, retries=retry_policy(retries=RetryBudget(share=0, reserve=1))
    ) as workers:
        assert (await ask(workers, key=key_for(*clients))).digest == INFO.digest
        with pytest.raises(WorkerFailed):
            await ask(workers, key=key_for(*clients))

    assert [len(each.calls) for each in stand_ins] == [2, 1]


# -- the same call at two workers ------------------------------------------------------------------


def hedged(*, reserve: float = 100) -> RetryPolicy:
    return retry_policy(0.02, hedges=RetryBudget(share=0, reserve=reserve))


async def test_by_default_no_call_is_made_twice() -> None:
    release = asyncio.Event()

    async def held(call: ScoreCall) -> Response:
        await release.wait()
        return await good(call)

    stand_ins = [StandIn(held), StandIn(held)]

    async with monitored(*(each.client for each in stand_ins)) as workers:
        waiting = asyncio.create_task(ask(workers))
        await wait_until(lambda: asked(stand_ins) == 1)
        # ten times as long as a hedge waits in the tests below
        await asyncio.sleep(0.2)
        release.set()

        assert (await waiting).digest == INFO.digest

    assert asked(stand_ins) == 1


async def test_of_two_workers_the_first_to_reply_wins_and_the_other_is_called_off() -> None:
    cancelled = asyncio.Event()

    async def slow(call: ScoreCall) -> Response:
        try:
            return await never(call)
        finally:
            cancelled.set()

    stand_ins = [StandIn(slow), StandIn(good), StandIn(good)]
    clients = [each.client for each in stand_ins]

    async with monitored(*clients, retries=hedged()) as workers:
        assert (await ask(workers, key=key_for(*clients))).digest == INFO.digest
        assert cancelled.is_set()
        assert asked(stand_ins) == 2
        assert [worker.load for worker in workers.members] == [0, 0, 0]


async def test_a_quick_reply_is_asked_for_once() -> None:
    stand_ins = [StandIn(good), StandIn(good)]
    async with monitored(*(each.client for each in stand_ins), retries=retry_policy(60)) as workers:
        for number in range(10):
            await ask(workers, key=b"%d" % number)
    assert asked(stand_ins) == 10


async def test_a_worker_with_work_of_its_own_is_not_asked_too() -> None:
    release = asyncio.Event()

    async def held(call: ScoreCall) -> Response:
        await release.wait()
        return await good(call)

    stand_ins = [StandIn(held), StandIn(held)]

    async with monitored(*(each.client for each in stand_ins), retries=hedged()) as workers:
        waiting = [asyncio.create_task(ask(workers, key=b"%d" % number)) for number in range(4)]
        await wait_until(lambda: asked(stand_ins) >= 4)
        # five times as long as a call waits before it is made elsewhere too
        await asyncio.sleep(0.1)
        assert asked(stand_ins) == 4
        release.set()
        await asyncio.gather(*waiting)


async def test_second_calls_have_a_budget() -> None:
    stand_ins = [StandIn(never), StandIn(good)]
    clients = [each.client for each in stand_ins]
    async with monitored(*clients, retries=hedged(reserve=2)) as workers:
        key = key_for(*clients)
        for _ in range(2):
            await ask(workers, key=key)
        waiting = asyncio.create_task(ask(workers, key=key))
        await wait_until(lambda: len(stand_ins[0].calls) == 3)
        await asyncio.sleep(0.1)
        assert (len(stand_ins[1].calls), waiting.done()) == (2, False)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        assert [worker.load for worker in workers.members] == [0, 0]


@pytest.mark.parametrize("first", ["the first", "the second"])
async def test_where_one_of_two_fails_the_other_is_waited_for(first: str) -> None:
    async def late(call: ScoreCall) -> Response:
        await both.wait()
        return await good(call)

    async def fails(call: ScoreCall) -> Response:
        if first == "the first":
            await begun.wait()
        both.set()
        return Response(status_code=500)

    async def begins(call: ScoreCall) -> Response:
        begun.set()
        return await late(call)

    both, begun = asyncio.Event(), asyncio.Event()
    stand_ins = (
        [StandIn(fails), StandIn(begins)]
        if first == "the first"
        else [StandIn(late), StandIn(fails)]
    )
    clients = [each.client for each in stand_ins]
    async with monitored(*clients, retries=hedged()) as workers:
        assert (await ask(workers, key=key_for(*clients))).pairs == [scored(0), scored(1)]

    assert [len(each.calls) for each in stand_ins] == [1, 1]


async def test_where_both_fail_no_third_is_asked() -> None:
    both = asyncio.Event()

    async def fails(call: ScoreCall) -> Response:
        if asked(stand_ins) == 2:
            both.set()
        await both.wait()
        return Response(status_code=500)

    stand_ins = [StandIn(fails) for _ in range(3)]
    async with monitored(*(each.client for each in stand_ins), retries=hedged()) as workers:
        with pytest.raises(WorkerFailed):
            await ask(workers, soon(), CALL)

    assert asked(stand_ins) == 2


async def test_one_that_is_cancelled_cancels_both() -> None:
    stand_ins = [StandIn(never), StandIn(never)]
    async with monitored(*(each.client for each in stand_ins), retries=hedged()) as workers:
        waiting: asyncio.Task[ScoreReply] = asyncio.create_task(ask(workers))
        await wait_until(lambda: asked(stand_ins) == 2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        assert [worker.load for worker in workers.members] == [0, 0]
        assert not any(worker.calls for worker in workers.members)
