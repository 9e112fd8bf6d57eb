"""A query for each document: equal queries are one call, few are scored at a time, and the answer
is that of one request."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from starlette.responses import Response

from service.errors import EmptyItem, InvalidRequest, NoWorker, PairTooLong, RerankError
from service.gateway.costs import admission_cost, request_cost
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.query_groups import QUERIES_AT_ONCE
from service.items import Item
from service.wire import Refused, ScoreCall
from tests.gateway.encoded_pictures import bare, encode, picture
from tests.gateway.stand_in import INFO, Reader, StandIn, monitored, reply, reranker, scored, soon

TWO = structs.replace(INFO, digest="sha256:two")
IMAGE = Item(image=bare(encode(picture())))
numbers = st.integers(-3, 3).map(str)


def asked(*pairs: tuple[str | Item | RerankError, str | Item | RerankError], **fields: Any) -> Any:
    """A query with a document for each of its queries."""

    def read(item: str | Item | RerankError) -> Item | RerankError:
        return Item(text=item) if isinstance(item, str) else item

    queries = [read(query) for query, _ in pairs]
    documents = [read(document) for _, document in pairs]
    for index, query in enumerate(queries):
        if isinstance(query, RerankError):
            documents[index] = query
    return RerankQuery(queries, documents, **fields)


async def answered(worker: StandIn, query: RerankQuery, seconds: float = 30) -> RerankResult:
    async with monitored(worker.client) as workers:
        return await reranker(workers).rerank(query, soon(seconds))


def by_index(result: RerankResult) -> dict[int, float]:
    return {each.index: each.score.logit for each in result.ranked}


def errors(result: RerankResult) -> list[tuple[int, str, str]]:
    return [(index, error.code, error.sentence()) for index, error in result.errors]


class Asking(StandIn):
    """Scores a text by its number and that of its query: 10 times the query's and its own.

    `most` is the largest number of calls that were in progress together.
    """

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.inside = self.most = 0

    async def _answer(self, call: ScoreCall) -> Response:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.001)
        self.inside -= 1

        query = float(call.query[0])
        return reply([scored(10 * query + float(each[0])) for each in call.documents])


async def test_equal_queries_are_one_call() -> None:
    worker = Asking()
    result = await answered(worker, asked(("1", "2"), ("0", "3"), ("1", "4"), ("1", "2")))
    assert by_index(result) == {0: 12, 1: 3, 2: 14, 3: 12}
    calls = [(call.query, call.documents) for call in worker.calls]
    assert sorted(calls) == [(["0"], [["3"]]), (["1"], [["2"], ["4"]])]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
async def test_each_pair_has_the_score_that_it_has_alone(pairs: list[tuple[str, str]]) -> None:
    worker = Asking()
    result = await answered(worker, asked(*pairs))
    expected = {index: 10 * float(q) + float(d) for index, (q, d) in enumerate(pairs)}
    assert by_index(result) == expected
    assert [each.index for each in result.ranked] == sorted(
        expected, key=lambda index: (-expected[index], index)
    )
    assert len(worker.calls) == len({query for query, _ in pairs})


async def test_few_queries_are_scored_at_a_time() -> None:
    worker = Asking()
    pairs = [(str(number), "1") for number in range(5 * QUERIES_AT_ONCE)]
    result = await answered(worker, asked(*pairs))
    assert len(result.ranked) == len(pairs)
    assert worker.most == QUERIES_AT_ONCE


async def test_scores_are_shared_with_requests_of_one_query() -> None:
    worker = Asking()
    async with monitored(worker.client) as workers:
        rerank = reranker(workers).rerank
        await rerank(RerankQuery(Item(text="1"), [Item(text="2"), Item(text="3")]), soon())
        paired = await rerank(asked(("1", "3"), ("0", "3"), ("1", "2")), soon())
        again = await rerank(RerankQuery(Item(text="0"), [Item(text="3")]), soon())

    assert [each.index for each in paired.ranked if each.cached] == [0, 2]
    assert [each.cached for each in again.ranked] == [True]
    assert len(worker.calls) == 2


async def test_all_pairs_are_of_one_digest_though_the_model_is_replaced_in_between() -> None:
    class Replaced(Reader):
        """Becomes another model once it has answered a call."""

        async def _read(self, call: ScoreCall) -> Response:
            answer = await super()._read(call)
            self.becomes(TWO, more=100)
            return answer

    pairs = [(str(number), "1") for number in range(3)]
    result = await answered(Replaced(), asked(*pairs))
    assert result.model.digest == TWO.digest
    assert by_index(result) == {0: 101, 1: 101, 2: 101}


async def test_pairs_that_are_late_are_listed_and_the_others_ranked() -> None:
    pairs = [("a", "1"), ("b", "late"), ("c", "3")]
    result = await answered(Reader(), asked(*pairs, skip_errors=True), seconds=2)
    assert by_index(result) == {0: 1, 2: 3}
    assert [(index, code) for index, code, _ in errors(result)] == [(1, "deadline_exceeded")]


async def test_a_bad_query_or_document_is_listed_at_its_place() -> None:
    broken = Item(image=bare(encode(picture())[:70]))
    empty = EmptyItem().at(("queries", 1))
    pairs = [("a", "1"), (empty, "2"), (broken, "3"), ("b", broken), ("c", "long"), (broken, "4")]
    result = await answered(Reader(), asked(*pairs, skip_errors=True))
    assert by_index(result) == {0: 1}
    assert errors(result) == [
        (1, "empty_item", "queries[1] needs a text or an image."),
        (2, "invalid_image", "queries[2].image cannot be read: send PNG, JPEG or WebP."),
        (3, "invalid_image", "documents[3].image cannot be read: send PNG, JPEG or WebP."),
        (
            4,
            "pair_too_long",
            "Query and document have more than the 3200 tokens that the model reads.",
        ),
        (5, "invalid_image", "queries[5].image cannot be read: send PNG, JPEG or WebP."),
    ]


async def test_a_query_that_is_too_long_by_itself_fails_no_other() -> None:
    class Short(StandIn):
        """Refuses a query of more than a letter."""

        def __init__(self) -> None:
            super().__init__(self._answer)

        async def _answer(self, call: ScoreCall) -> Response:
            if len(str(call.query[0])) > 1:
                return reply([Refused(PairTooLong.code, part="query")] * len(call.documents))
            return reply([scored(1.0)] * len(call.documents))

    pairs = [("a", "1"), ("long", "2"), ("b", "3"), ("long", "4")]
    result = await answered(Short(), asked(*pairs, skip_errors=True))
    assert by_index(result) == {0: 1, 2: 1}
    assert [place.partition(" ")[0] for _, _, place in errors(result)] == [
        "queries[1]",
        "queries[3]",
    ]

    with pytest.raises(PairTooLong) as caught:
        await answered(Short(), asked(*pairs))
    assert [problem.loc for problem in caught.value.problems] == [("queries", 1), ("queries", 3)]


async def test_without_skip_every_bad_pair_is_named() -> None:
    pairs = [(EmptyItem().at(("queries", 0)), "1"), ("b", Item(image="bm90"))]
    with pytest.raises(EmptyItem) as caught:
        await answered(Reader(), asked(*pairs))
    assert [problem.loc for problem in caught.value.problems] == [
        ("queries", 0),
        ("documents", 1, "image"),
    ]


async def test_a_worker_that_is_gone_fails_the_request() -> None:
    class Gone(StandIn):
        def __init__(self) -> None:
            super().__init__(self._answer)

        async def _answer(self, call: ScoreCall) -> Response:
            raise httpx.ConnectError("gone")

    with pytest.raises(RerankError) as caught:
        await answered(Gone(), asked(("1", "2"), ("2", "3")))
    assert caught.value.code in ("worker_failed", NoWorker.code)


async def test_a_model_of_text_refuses_an_image_on_either_side() -> None:
    def reads_text() -> Reader:
        worker = Reader()
        worker.info = structs.replace(INFO, images=None)
        return worker

    pairs = [("a", "1"), (IMAGE, "2"), ("c", IMAGE)]
    with pytest.raises(InvalidRequest) as caught:
        await answered(reads_text(), asked(*pairs))
    assert caught.value.problems[0].loc == ("queries", 1)

    result = await answered(reads_text(), asked(*pairs, skip_errors=True))
    assert by_index(result) == {0: 1}
    assert [place.partition(":")[0] for _, _, place in errors(result)] == [
        "queries[1]",
        "documents[2]",
    ]


texts = st.text(max_size=40).filter(bool)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=10), st.text(max_size=20))
def test_a_request_costs_what_its_queries_cost_each_with_their_documents(
    pairs: list[tuple[str, str]], instruction: str
) -> None:
    groups: dict[str, list[Item]] = {}
    for query, document in pairs:
        groups.setdefault(query, []).append(Item(text=document))

    used = instruction or INFO.default_instruction
    expected = sum(
        admission_cost(used, Item(text=query), documents, INFO)
        for query, documents in groups.items()
    )
    assert request_cost(asked(*pairs, instruction=instruction), INFO) == expected
