"""Equal pairs in flight are scored once; no request waits for ever, and no failure is shared or
lost."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Mapping
from typing import Any

import pytest

from service.errors import DeadlineExceeded, NoWorker, PairTooLong, RerankError, WorkerFailed
from service.gateway.domain import PairOutcome
from service.gateway.media.content import Content, Text
from service.gateway.single_flight import (
    JOINS,
    SMALL_FLIGHT,
    WORTH_JOINING,
    FlightResult,
    SingleFlight,
)
from service.wire import Scored
from tests.gateway.stand_in import scored, soon
from tests.metrics import metric_value

Answer = tuple[set[str], dict[bytes, PairOutcome]]
DIGEST = "d"


class Scorer:
    """Scores a document by its number; each call waits until `go` ends it."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.words: list[asyncio.Future[set[str] | Exception]] = []

    async def __call__(self, documents: Mapping[bytes, Content]) -> Answer:
        word = asyncio.get_running_loop().create_future()
        self.calls.append([int(key) for key in documents])
        self.words.append(word)
        said = await word
        if isinstance(said, Exception):
            raise said
        return said, {key: self.verdict(int(key)) for key in documents}

    def verdict(self, number: int) -> PairOutcome:
        return PairTooLong() if number < 0 else scored(number)

    def go(self, call: int, said: set[str] | Exception | None = None) -> None:
        """End a call with the digests of its replies, or with an exception."""
        self.words[call].set_result({DIGEST} if said is None else said)

    async def called(self, times: int) -> None:
        async with asyncio.timeout(30):
            while len(self.calls) < times:
                await asyncio.sleep(0)


class House:
    """Requests that share flights."""

    def __init__(self) -> None:
        self.flights = SingleFlight()
        self.scorer = Scorer()

    def ask(self, *numbers: int, seconds: float = 60) -> asyncio.Task[FlightResult]:
        documents: dict[bytes, Content] = {str(number).encode(): (Text("t"),) for number in numbers}
        return asyncio.create_task(
            self.flights.score(documents, DIGEST, soon(seconds), self.scorer)
        )


@pytest.fixture
async def house() -> House:
    return House()


async def settle() -> None:
    """Run every task until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def numbers(verdicts: Mapping[bytes, PairOutcome]) -> dict[int, float | str]:
    return {
        int(key): each.logit if isinstance(each, Scored) else each.code
        for key, each in verdicts.items()
    }


async def test_a_pair_under_way_is_scored_once(house: House) -> None:
    before = metric_value("rerank_pairs_coalesced_total")
    first, second, third = house.ask(1, 2), house.ask(2, 3), house.ask(1, 2)
    await settle()
    assert house.scorer.calls == [[1, 2], [3]]
    house.scorer.go(0)
    house.scorer.go(1)

    assert [numbers((await each).fresh) for each in (first, second, third)] == [
        {1: 1, 2: 2},
        {3: 3},
        {},
    ]
    assert [numbers((await each).joined) for each in (first, second, third)] == [
        {},
        {2: 2},
        {1: 1, 2: 2},
    ]
    assert [(await each).digests for each in (first, second, third)] == [{DIGEST}, {DIGEST}, set()]
    assert metric_value("rerank_pairs_coalesced_total") == before + 3
    assert house.flights.pairs == 0


async def test_what_has_landed_is_not_under_way(house: House) -> None:
    first = house.ask(1)
    await settle()
    house.scorer.go(0)
    await first
    second = house.ask(1)
    await house.scorer.called(2)
    house.scorer.go(1)

    assert numbers((await second).fresh) == {1: 1}


async def test_two_that_each_lead_what_the_other_needs_both_end(house: House) -> None:
    helpers = [house.ask(1), house.ask(2)]
    crossing = [house.ask(3, 1, 4), house.ask(4, 2, 3)]
    await settle()
    assert house.scorer.calls == [[1], [2], [3, 4]]
    for call in (2, 1, 0):
        house.scorer.go(call)
        await settle()
    assert [numbers((await each).joined) for each in crossing] == [{1: 1}, {2: 2, 3: 3, 4: 4}]
    await asyncio.gather(*helpers)


@pytest.mark.parametrize("failure", [WorkerFailed(), NoWorker(), RuntimeError("a bug")])
async def test_a_leaders_failure_is_its_own(house: House, failure: Exception) -> None:
    leader, waiter, other = house.ask(1, 2), house.ask(1, 2, 3), house.ask(2)
    await settle()
    house.scorer.go(0, failure)
    house.scorer.go(1)
    with pytest.raises(type(failure)):
        await leader
    await house.scorer.called(3)
    await settle()
    assert house.scorer.calls[2:] in ([[1, 2]], [[2], [1]])  # the first to wake leads
    for call in range(2, len(house.scorer.calls)):
        house.scorer.go(call)

    assert numbers((await waiter).fresh | (await waiter).joined) == {1: 1, 2: 2, 3: 3}
    assert numbers((await other).fresh | (await other).joined) == {2: 2}


async def test_a_cancelled_leader_leaves_its_pairs_to_a_waiter(house: House) -> None:
    leader, waiters = house.ask(1), [house.ask(1) for _ in range(3)]
    await settle()
    leader.cancel()
    await house.scorer.called(2)
    await settle()
    assert house.scorer.calls == [[1], [1]]  # one of the three, the others wait for it
    house.scorer.go(1)

    assert [numbers((await each).fresh | (await each).joined) for each in waiters] == [{1: 1}] * 3
    assert leader.cancelled()


async def test_a_cancelled_waiter_leaves_no_trace(house: House) -> None:
    leader, gone, waiter = house.ask(1), house.ask(1), house.ask(1)
    await settle()
    gone.cancel()
    await settle()
    house.scorer.go(0)

    assert numbers((await waiter).joined) == numbers((await leader).fresh) == {1: 1}
    assert house.scorer.calls == [[1]]
    assert gone.cancelled()
    assert house.flights.pairs == 0


async def test_a_leader_without_time_leaves_its_pairs_to_a_waiter(house: House) -> None:
    async def late(documents: Mapping[bytes, Content]) -> Answer:
        word.set()
        await go.wait()
        return {DIGEST}, dict.fromkeys(documents, DeadlineExceeded())

    word, go = asyncio.Event(), asyncio.Event()
    leader = asyncio.create_task(house.flights.score({b"1": (Text("t"),)}, DIGEST, soon(), late))
    await word.wait()
    waiter = house.ask(1)
    await settle()
    go.set()
    assert numbers((await leader).fresh) == {1: "deadline_exceeded"}
    await house.scorer.called(1)
    house.scorer.go(0)

    assert numbers((await waiter).fresh) == {1: 1}


async def test_a_waiter_waits_no_longer_than_its_own_time(house: House) -> None:
    leader, waiter = house.ask(1), house.ask(1, seconds=0.05)
    assert numbers((await waiter).fresh) == {1: "deadline_exceeded"}
    assert house.scorer.calls == [[1]]
    house.scorer.go(0)

    assert numbers((await leader).fresh) == {1: 1}


@pytest.mark.parametrize("digests", [{"other"}, {DIGEST, "other"}])
async def test_scores_of_another_digest_are_not_handed_over(
    house: House, digests: set[str]
) -> None:
    leader, waiter = house.ask(1), house.ask(1)
    await settle()
    house.scorer.go(0, digests)
    assert (await leader).digests == digests
    await house.scorer.called(2)
    house.scorer.go(1)

    assert numbers((await waiter).fresh) == {1: 1}


async def test_what_no_model_reads_is_handed_over_too(house: House) -> None:
    leader, waiter = house.ask(-1, 2), house.ask(-1)
    await settle()
    house.scorer.go(0)
    assert numbers((await waiter).joined) == {-1: "pair_too_long"}
    assert numbers((await leader).fresh) == {-1: "pair_too_long", 2: 2}


async def test_who_has_waited_in_vain_often_enough_scores_alone(house: House) -> None:
    house.ask(1)
    waiters = [house.ask(1) for _ in range(5)]
    for flight in range(JOINS):
        await house.scorer.called(flight + 1)
        await settle()
        assert len(house.scorer.calls) == flight + 1
        house.scorer.go(flight, WorkerFailed())
    await settle()
    # one of the waiters led in vain, the others do not wait any more
    assert len(house.scorer.calls) == JOINS + 4
    for call in range(JOINS, len(house.scorer.calls)):
        house.scorer.go(call)
    ended = await asyncio.gather(*waiters, return_exceptions=True)

    assert [type(each) for each in ended].count(WorkerFailed) == 1
    assert [numbers(each.fresh) for each in ended if isinstance(each, FlightResult)] == [{1: 1}] * 4
    assert house.flights.pairs == 0


async def test_a_small_request_does_not_wait_for_a_huge_flight(house: House) -> None:
    large = 4 * SMALL_FLIGHT
    leader = house.ask(*range(large))
    small, quarter = house.ask(1), house.ask(*range(large // WORTH_JOINING))
    await settle()
    assert [len(call) for call in house.scorer.calls] == [large, 1]
    house.scorer.go(1)
    assert numbers((await small).fresh) == {1: 1}
    house.scorer.go(0)

    assert len((await quarter).joined) == large // WORTH_JOINING
    assert len((await leader).fresh) == large
    assert house.flights.pairs == 0


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_everyone_gets_an_answer_or_an_error_of_its_own(seed: int) -> None:
    chance = random.Random(seed)
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    house = House()
    wanted: dict[asyncio.Task[FlightResult], set[int]] = {}
    open_ = 0
    while len(wanted) < 40 or open_ < len(house.scorer.words):
        if len(wanted) < 40 and chance.random() < 0.5:
            some = set(chance.sample(range(8), chance.randint(1, 5)))
            wanted[house.ask(*some)] = some
        elif wanted and chance.random() < 0.2:
            chance.choice(list(wanted)).cancel()
        elif open_ < len(house.scorer.words):
            if not house.scorer.words[open_].done():
                house.scorer.go(
                    open_,
                    chance.choice(
                        [None, None, {DIGEST, "other"}, WorkerFailed(), RuntimeError("a bug")]
                    ),
                )
            open_ += 1
        await settle()
    for task, some in wanted.items():
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(ended, FlightResult):
            assert numbers(ended.fresh | ended.joined) == {number: number for number in some}
        else:
            assert isinstance(ended, asyncio.CancelledError | RerankError | RuntimeError)
    assert house.flights.pairs == 0
    wanted.clear()
    gc.collect()
    await settle()
    loop.set_exception_handler(None)

    assert complaints == []
