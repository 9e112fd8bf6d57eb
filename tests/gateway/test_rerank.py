"""One rerank request, with a worker that reads each document's logit from its text."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from PIL import Image
from starlette.responses import Response

from service.errors import (
    DeadlineExceeded,
    EmptyItem,
    InvalidImage,
    InvalidRequest,
    ModelNotFound,
    PairTooLong,
    RerankError,
    WorkerFailed,
)
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.fleet.pool import WorkerPool
from service.gateway.rerank import Reranker
from service.items import Item
from service.wire import ScoreCall
from tests.gateway.stand_in import INFO, Reader, monitored, reply, reranker, scored, soon

TWO = structs.replace(INFO, digest="sha256:two")


QUERY = Item(text="q")


@dataclass
class House:
    """A reranker and its only worker."""

    reranker: Reranker
    worker: Reader
    pool: WorkerPool

    async def worker_is_probed(self) -> None:
        (member,) = self.pool.members
        await member.probe()

    async def rerank(
        self, *documents: str | Item | RerankError, seconds: float = 30, **fields: Any
    ) -> RerankResult:
        items = [Item(text=each) if isinstance(each, str) else each for each in documents]
        asked: dict[str, Any] = {"query": QUERY, "documents": items} | fields
        return await self.reranker.rerank(RerankQuery(**asked), soon(seconds))


def opened(workers: WorkerPool, worker: Reader) -> House:
    return House(reranker(workers), worker, workers)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    worker = Reader()
    async with monitored(worker.client) as workers:
        yield opened(workers, worker)


def logits(outcome: RerankResult) -> list[float]:
    return [each.score.logit for each in outcome.ranked]


def cached(outcome: RerankResult) -> list[int]:
    return [each.index for each in outcome.ranked if each.cached]


def codes(outcome: RerankResult) -> list[tuple[int, str]]:
    return [(index, error.code) for index, error in outcome.errors]


def picture(color: str, *, side: int = 64, keep: int | None = None) -> Item:
    file = io.BytesIO()
    Image.new("RGB", (side, side), color).save(file, "PNG")
    return Item(image=base64.b64encode(file.getvalue()[:keep]).decode())


LARGE = picture("blue", side=1_000)
"""More pixels than a first chunk holds, so that texts beside it are a call of their own."""


async def test_results_fall_by_logit_and_ties_keep_their_order(house: House) -> None:
    outcome = await house.rerank("1", "3", "-2", "1.0", "3.0", "2")
    assert [each.index for each in outcome.ranked] == [1, 4, 5, 0, 3, 2]
    assert logits(outcome) == [3, 3, 2, 1, 1, -2]
    assert outcome.errors == []
    assert outcome.model == INFO


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
async def test_the_order_is_that_of_a_stable_sort(numbers: Sequence[int]) -> None:
    worker = Reader()
    async with monitored(worker.client) as workers:
        outcome = await opened(workers, worker).rerank(*map(str, numbers))
    assert [each.index for each in outcome.ranked] == sorted(
        range(len(numbers)), key=lambda index: -numbers[index]
    )


async def test_what_is_known_is_not_sent_again(house: House) -> None:
    first = await house.rerank("1", "2")
    second = await house.rerank("3", "2", "1")
    third = await house.rerank("1", "3")
    assert house.worker.seen() == [["1", "2"], ["3"]]
    assert [cached(each) for each in (first, second, third)] == [[], [1, 2], [1, 0]]
    assert [logits(each) for each in (first, second, third)] == [[2, 1], [3, 2, 1], [3, 1]]


@pytest.mark.parametrize(
    "change", [{"query": Item(text="other")}, {"instruction": "judge"}, {"truncate": False}]
)
async def test_another_question_is_asked_anew(house: House, change: dict[str, Any]) -> None:
    await house.rerank("1")
    assert cached(await house.rerank("1", **change)) == []
    assert house.worker.seen() == [["1"], ["1"]]


async def test_the_models_own_instruction_is_the_default(house: House) -> None:
    await house.rerank("1")
    assert cached(await house.rerank("1", instruction=INFO.default_instruction)) == [0]


async def test_equal_documents_are_sent_once_and_each_is_ranked(house: House) -> None:
    outcome = await house.rerank("1", "2", "1", picture("red"), "1", picture("red"))
    assert [each.index for each in outcome.ranked] == [1, 0, 2, 4, 3, 5]
    (call,) = house.worker.calls
    assert (call.documents, len(call.images)) == ([["1"], ["2"], [0]], 1)


async def test_bypass_neither_reads_nor_writes(house: House) -> None:
    await house.rerank("1")
    assert cached(await house.rerank("1", "2", cache="bypass")) == []
    assert cached(await house.rerank("1", "2")) == [0]
    assert house.worker.seen() == [["1"], ["1", "2"], ["2"]]


async def test_refresh_writes_without_reading(house: House) -> None:
    await house.rerank("1")
    house.worker.more = 10
    assert logits(await house.rerank("1", "2", cache="refresh")) == [12, 11]
    again = await house.rerank("1", "2")

    assert (logits(again), cached(again)) == ([12, 11], [1, 0])
    assert house.worker.seen() == [["1"], ["1", "2"]]


async def test_a_new_model_during_a_request_drops_the_old_scores(house: House) -> None:
    await house.rerank("1", "2")
    house.worker.becomes(TWO, more=100)
    outcome = await house.rerank("1", "2", "3")
    assert (logits(outcome), cached(outcome), outcome.model) == ([103, 102, 101], [], TWO)
    assert house.worker.seen() == [["1", "2"], ["3"], ["1", "2", "3"]]
    again = await house.rerank("1", "2", "3")

    assert (logits(again), cached(again), again.model) == ([103, 102, 101], [2, 1, 0], TWO)


async def test_a_new_model_without_old_scores_is_named_and_not_kept_under_the_old_name(
    house: House,
) -> None:
    house.worker.becomes(TWO, more=100)
    outcome = await house.rerank("1")
    assert (logits(outcome), outcome.model) == ([101], TWO)
    house.worker.becomes(INFO, more=0)
    assert logits(await house.rerank("2", cache="bypass")) == [2]
    outcome = await house.rerank("1")

    assert (logits(outcome), cached(outcome)) == ([1], [])


@pytest.mark.parametrize("cache", ["use", "bypass"])
async def test_two_models_in_one_request_are_asked_once_for_all(house: House, cache: str) -> None:
    worker = house.worker

    async def replaced_after_the_first_call(call: ScoreCall) -> Response:
        if len(worker.calls) == 1:
            return reply([scored(1)])
        worker.info = TWO
        return reply([scored(2)], TWO.digest)

    worker.answer = replaced_after_the_first_call
    outcome = await house.rerank("a text", LARGE, cache=cache)
    assert (logits(outcome), cached(outcome), outcome.model) == ([2, 2], [], TWO)
    assert len(worker.calls) == 4
    again = await house.rerank("a text", LARGE, cache=cache)

    assert cached(again) == ([0, 1] if cache == "use" else [])


async def test_two_models_in_each_of_two_attempts_are_a_failure(house: House) -> None:
    async def alternating(call: ScoreCall) -> Response:
        return reply([scored(1)], TWO.digest if len(house.worker.calls) % 2 else INFO.digest)

    house.worker.answer = alternating
    with pytest.raises(WorkerFailed):
        await house.rerank("a text", LARGE)
    assert len(house.worker.calls) == 4


TEXT_ONLY = structs.replace(INFO, digest="sha256:text", images=None)


async def test_an_image_for_a_model_of_text_is_refused_before_it_is_opened(house: House) -> None:
    house.worker.becomes(TEXT_ONLY, more=0)
    await house.worker_is_probed()
    with pytest.raises(InvalidRequest) as raised:
        await house.rerank("1", picture("red", keep=70))
    assert [problem.loc for problem in raised.value.problems] == [("documents", 1)]
    assert house.worker.seen() == []


async def test_a_new_model_of_text_lists_the_images_as_errors_or_refuses_them(house: House) -> None:
    await house.rerank("1")
    house.worker.becomes(TEXT_ONLY, more=100)
    outcome = await house.rerank("1", "2", picture("red"), skip_errors=True)
    assert (logits(outcome), cached(outcome), outcome.model) == ([102, 101], [], TEXT_ONLY)
    assert codes(outcome) == [(2, "invalid_request")]

    house.worker.becomes(INFO, more=0)
    await house.worker_is_probed()
    house.worker.becomes(TEXT_ONLY, more=100)
    with pytest.raises(InvalidRequest):
        await house.rerank("1", "3", picture("red"))


async def test_bad_documents_fail_the_request_naming_each(house: House) -> None:
    unread = [EmptyItem().at(("documents", index)) for index in (1, 2)]
    with pytest.raises(EmptyItem) as raised:
        await house.rerank("1", *unread, Item(text="data:image/png;base64,AAAA"), "long")
    assert [problem.loc for problem in raised.value.problems] == [
        ("documents", index) for index in (1, 2, 3)
    ]
    assert house.worker.seen() == []


async def test_an_image_that_does_not_decode_is_named_wherever_it_stands(house: House) -> None:
    with pytest.raises(InvalidImage) as raised:
        await house.rerank(picture("red", keep=70), "1", picture("red", keep=70))
    assert [problem.loc for problem in raised.value.problems] == [
        ("documents", 0, "image"),
        ("documents", 2, "image"),
    ]


async def test_a_pair_that_is_too_long_is_named_by_its_document(house: House) -> None:
    with pytest.raises(PairTooLong) as raised:
        await house.rerank("1", "long")
    assert [problem.loc for problem in raised.value.problems] == [("documents", 1)]


async def test_skipped_documents_are_listed_and_the_rest_is_ranked(house: House) -> None:
    documents: list[str | Item | RerankError] = [
        "1",
        EmptyItem(),
        picture("red", keep=70),
        "long",
        "2",
        picture("red", keep=70),
    ]
    outcome = await house.rerank(*documents, skip_errors=True)
    assert [each.index for each in outcome.ranked] == [4, 0]
    assert codes(outcome) == [
        (1, "empty_item"),
        (2, "invalid_image"),
        (3, "pair_too_long"),
        (5, "invalid_image"),
    ]


async def test_a_query_that_cannot_be_read_fails_even_where_errors_are_skipped(
    house: House,
) -> None:
    ask = RerankQuery(query=picture("red", keep=70), documents=[Item(text="1")], skip_errors=True)
    with pytest.raises(InvalidImage) as raised:
        await house.reranker.rerank(ask, soon())
    assert [problem.loc for problem in raised.value.problems] == [("query", "image")]


async def test_what_was_not_scored_in_time_fails_the_request(house: House) -> None:
    with pytest.raises(DeadlineExceeded):
        await house.rerank("1", "late", "2")


async def test_what_was_not_scored_in_time_is_listed_where_errors_are_skipped(house: House) -> None:
    outcome = await house.rerank("1", "late", "2", skip_errors=True)
    assert [each.index for each in outcome.ranked] == [2, 0]
    assert codes(outcome) == [(1, "deadline_exceeded")]


async def test_what_was_scored_in_time_is_known_afterwards(house: House) -> None:
    with pytest.raises(DeadlineExceeded):
        await house.rerank("1", "late", "2")
    assert cached(await house.rerank("1", "2")) == [1, 0]


async def test_a_worker_that_never_answers_leaves_what_was_known(house: House) -> None:
    async def never(call: ScoreCall) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    await house.rerank("1")
    house.worker.answer = never
    with pytest.raises(DeadlineExceeded):
        await house.rerank("1", "2", seconds=0.1)
    outcome = await house.rerank("1", "2", seconds=0.1, skip_errors=True)

    assert ([each.index for each in outcome.ranked], codes(outcome)) == (
        [0],
        [(1, "deadline_exceeded")],
    )


async def test_only_a_served_model_can_be_asked(house: House) -> None:
    assert logits(await house.rerank("1", model="m")) == [1]
    with pytest.raises(ModelNotFound):
        await house.rerank("1", model="other")


async def test_scores_that_are_known_need_no_time(house: House) -> None:
    await house.rerank("1", "2")
    assert [each.score for each in (await house.rerank("1", "2", seconds=-1)).ranked] == [
        scored(2),
        scored(1),
    ]


class Gate:
    """Holds back the worker's answers until `open` is set."""

    def __init__(self, house: House) -> None:
        self.open = asyncio.Event()
        self._answer = house.worker.answer
        house.worker.answer = self

    async def __call__(self, call: ScoreCall) -> Response:
        await self.open.wait()
        return await self._answer(call)


async def sent(house: House, calls: int) -> None:
    async with asyncio.timeout(30):
        while len(house.worker.calls) < calls:
            await asyncio.sleep(0.001)
    # further calls have likely been sent by now; if not, their scores are found in the cache
    for _ in range(20):
        await asyncio.sleep(0.001)


async def test_pairs_under_way_are_sent_once_and_count_as_cached_for_whoever_joined(
    house: House,
) -> None:
    gate = Gate(house)
    first = asyncio.create_task(house.rerank("1", "2"))
    await sent(house, 1)
    others = [asyncio.create_task(house.rerank("2", "1", "3", "2")) for _ in range(3)]
    await sent(house, 2)
    gate.open.set()
    assert (logits(await first), cached(await first)) == ([2, 1], [])
    answers = await asyncio.gather(*others)

    assert [logits(each) for each in answers] == [[3, 2, 2, 1]] * 3
    assert sorted(cached(each) for each in answers) == [[0, 3, 1], [2, 0, 3, 1], [2, 0, 3, 1]]
    assert house.worker.seen() == [["1", "2"], ["3"]]


@pytest.mark.parametrize("cache", ["bypass", "refresh"])
@pytest.mark.parametrize("other", ["use", "bypass", "refresh"])
async def test_who_wants_its_own_scores_neither_leads_nor_joins(
    house: House, cache: str, other: str
) -> None:
    gate = Gate(house)
    for leads, joins in ((cache, other), (other, cache)):
        gate.open.clear()
        one = asyncio.create_task(house.rerank("1", instruction=leads + joins, cache=leads))
        await sent(house, 1)
        two = asyncio.create_task(house.rerank("1", instruction=leads + joins, cache=joins))
        await sent(house, 2)
        gate.open.set()

        assert cached(await one) == cached(await two) == []
        assert house.worker.seen() == [["1"], ["1"]]


async def test_a_bad_document_that_another_had_scored_is_named_where_it_stands_here(
    house: House,
) -> None:
    gate = Gate(house)
    first = asyncio.create_task(house.rerank("long", "1"))
    await sent(house, 1)
    second = asyncio.create_task(house.rerank("1", "1", "long"))
    await sent(house, 1)
    gate.open.set()
    for task, index in ((first, 0), (second, 2)):
        with pytest.raises(PairTooLong) as raised:
            await task
        assert [problem.loc for problem in raised.value.problems] == [("documents", index)]

    assert [sorted(map(str, documents)) for documents in house.worker.seen()] == [["1", "long"]]


async def test_scores_joined_from_a_model_that_is_replaced_meanwhile_are_dropped(
    house: House,
) -> None:
    worker = house.worker
    release = [asyncio.Event() for _ in range(3)]

    async def one_after_the_other(call: ScoreCall) -> Response:
        turn = len(worker.calls) - 1
        await release[turn].wait()
        if turn == 0:
            return reply([scored(1)])
        worker.info = TWO
        return reply([scored(100 + number) for number in range(len(call.documents))], TWO.digest)

    worker.answer = one_after_the_other
    leader = asyncio.create_task(house.rerank("1"))
    await sent(house, 1)
    joiner = asyncio.create_task(house.rerank("1", "2"))
    await sent(house, 2)
    for event in release:
        event.set()

    assert (logits(await leader), (await leader).model) == ([1], INFO)
    assert (logits(await joiner), cached(await joiner), (await joiner).model) == (
        [101, 100],
        [],
        TWO,
    )
    assert worker.seen() == [["1"], ["2"], ["1", "2"]]


async def test_scopes_share_no_score_and_no_cache_of_the_worker(house: House) -> None:
    ask = RerankQuery(query=QUERY, documents=[Item(text="1")])
    first = {
        scope: await house.reranker.rerank(ask, soon(), scope=scope)
        for scope in ("", "a", "b", "ab" * 500)
    }
    salts = [call.cache_salt for call in house.worker.calls]
    assert [cached(each) for each in first.values()] == [[]] * 4
    assert salts[0] == ""
    assert len(set(salts)) == 4
    assert max(map(len, salts)) <= 128
    again = [await house.reranker.rerank(ask, soon(), scope=scope) for scope in first]

    assert [cached(each) for each in again] == [[0]] * 4


async def test_a_scope_is_kept_when_the_model_is_replaced_meanwhile(house: House) -> None:
    ask = RerankQuery(query=QUERY, documents=[Item(text="1"), Item(text="2")])
    await house.reranker.rerank(
        RerankQuery(query=QUERY, documents=[Item(text="1")]), soon(), scope="a"
    )
    house.worker.becomes(TWO, more=100)
    await house.reranker.rerank(ask, soon(), scope="a")

    assert len({call.cache_salt for call in house.worker.calls}) == 1
    assert cached(await house.reranker.rerank(ask, soon(), scope="b")) == []
