"""A ranking by several requests is that of one, and loses no document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.responses import Response

from service.cli.client.batches import batches
from service.cli.client.calls import CannotCall, Refused, RetryBounds, Service
from service.cli.client.ranking import Question, RequestSizes, rank
from service.cli.documents.items import Document
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.cli.client.answers import answer, scripted
from tests.gateway.stand_in import INFO, Reader


def texts(*contents: str) -> list[Document]:
    return [Document(f"d{number}", {"text": text}) for number, text in enumerate(contents)]


@asynccontextmanager
async def service_of(worker: Reader, **limits: Any) -> AsyncIterator[Service]:
    """A real gateway over a worker that scores a document by the number in it."""
    app = create_gateway(GatewaySettings(**limits), [worker.client])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway/") as client,
    ):
        async with asyncio.timeout(10):
            while (await client.get("health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield Service(client)


async def ranked(
    service: Service, documents: Sequence[Document], size: int, **options: Any
) -> dict[str, Any]:
    advanced = 0

    def advance(count: int) -> None:
        nonlocal advanced
        advanced += count

    sizes = RequestSizes(documents=size, concurrency=3)
    question = Question({"text": "q"}, **options)
    answered = await rank(service, question, documents, sizes, advance=advance)
    assert advanced == len(documents)
    return answered


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_the_order_does_not_depend_on_the_size_of_requests(size: int) -> None:
    documents = texts("1", "3", "2", "3", "0", "", "5")
    async with service_of(Reader()) as service:
        whole = await ranked(service, documents, size)
        best = await ranked(service, documents, size, top_n=2)
        good = await ranked(service, documents, size, min_score=0.9)

    assert [result["index"] for result in whole["results"]] == [6, 1, 3, 2, 0, 4]
    assert [result["logit"] for result in whole["results"]] == [5, 3, 3, 2, 1, 0]
    assert [(error["index"], error["code"]) for error in whole["errors"]] == [(5, "empty_item")]
    assert whole["errors"][0]["message"].startswith("documents[5]")
    assert whole["usage"] == {"prompt_tokens": 60, "total_tokens": 60}
    assert whole["meta"]["tokens"] == {"input_tokens": 60}
    assert whole["meta"]["model_digest"] == INFO.digest
    assert [result["index"] for result in best["results"]] == [6, 1]
    assert [result["index"] for result in good["results"]] == [6, 1, 3]


async def test_text_that_is_not_unicode_is_an_error_of_its_document() -> None:
    async with service_of(Reader()) as service:
        answered = await ranked(service, texts("1", "\ud800", "2"), 3)
    assert [result["index"] for result in answered["results"]] == [2, 0]
    assert [(error["index"], error["code"]) for error in answered["errors"]] == [
        (1, "invalid_request")
    ]


async def test_documents_that_ran_out_of_time_are_asked_for_again_in_parts() -> None:
    worker = Reader()
    async with service_of(worker) as service:
        answered = await ranked(service, texts("4", "late", "1", "late"), 4)
    assert [result["index"] for result in answered["results"]] == [0, 2]
    assert [(error["index"], error["code"]) for error in answered["errors"]] == [
        (1, "deadline_exceeded"),
        (3, "deadline_exceeded"),
    ]
    first, *further = worker.seen()
    assert sorted(first) == ["1", "4", "late"]
    assert len(further) >= 2
    assert all(call == ["late"] for call in further), "what has a score is not asked for again"


async def test_documents_that_there_was_no_room_for_are_asked_for_again_within_bounds() -> None:
    def said(*scored: int, full: int | None = None) -> bytes:
        errors = [{"index": full, "code": "overloaded", "message": "documents[1]: it is full."}]
        body = {
            "id": "rr-1",
            "model": "m",
            "results": [{"index": index, "logit": 1.0} for index in scored],
            "errors": [] if full is None else errors,
            "meta": {"model_digest": "sha256:one"},
        }
        return answer("200 OK", json.dumps(body))

    with scripted([said(0, full=1), said(0)]) as full:
        async with httpx.AsyncClient(base_url=full.url) as client:
            service = Service(client, RetryBounds(attempts=2))
            answered = await ranked(service, texts("a", "b"), 2)
    assert [result["index"] for result in answered["results"]] == [0, 1]
    assert answered["errors"] == []
    assert len(full.lines) == 2

    with scripted([said(0, full=1)]) as full:
        async with httpx.AsyncClient(base_url=full.url) as client:
            service = Service(client, RetryBounds(attempts=1))
            answered = await ranked(service, texts("a", "b"), 2)
    assert [(error["index"], error["code"]) for error in answered["errors"]] == [(1, "overloaded")]
    assert len(full.lines) == 1


async def test_one_answer_never_mixes_two_models() -> None:
    worker = Reader()
    async with service_of(worker) as service:

        async def replaced(call: Any) -> Response:
            worker.digest = "sha256:two"
            return await original(call)

        original = worker.answer
        await ranked(service, texts("1"), 1)
        worker.answer = replaced
        with pytest.raises(CannotCall, match="model was replaced"):
            await ranked(service, texts("1", "2", "3"), 1)


async def test_a_missing_key_and_an_unknown_model_are_told_in_words() -> None:
    async with service_of(Reader(), api_keys=SecretStr("k" * 16)) as service:
        with pytest.raises(Refused) as refused:
            await service.info()
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert str(refused.value).endswith("Set RERANK_KEY, or give --key-file.")

    async with service_of(Reader()) as service:
        with pytest.raises(Refused, match=r"No such model is served here\. You may use: m\."):
            await ranked(service, texts("1"), 1, model="nope")


async def test_a_query_that_is_refused_fails_the_ranking() -> None:
    async with service_of(Reader()) as service:
        with pytest.raises(Refused) as refused:
            await rank(
                service,
                Question({"text": "q", "image": "AAAA"}),
                texts("1", "2"),
                RequestSizes(documents=1, concurrency=2),
                advance=lambda count: None,
            )
    assert refused.value.code == "invalid_image"
    assert str(refused.value).startswith("query.image ")


async def test_a_bound_of_bodies_at_a_proxy_splits_a_request() -> None:
    def scores(*logits: float) -> bytes:
        results = [
            {"index": index, "relevance_score": 0.5, "logit": logit}
            for index, logit in enumerate(logits)
        ]
        return answer("200 OK", json.dumps({"id": "rr-1", "model": "m", "results": results}))

    too_large = answer("413 Request Entity Too Large", "<h1>nginx</h1>")
    with scripted([too_large, scores(1.0), scores(2.0)]) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            sizes = RequestSizes(documents=10, concurrency=1)
            answered = await rank(
                Service(client),
                Question({"text": "q"}),
                texts("a", "b"),
                sizes,
                advance=lambda count: None,
            )
    assert sorted(result["index"] for result in answered["results"]) == [0, 1]
    assert len(server.lines) == 3


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 400), max_size=30),
    max_documents=st.integers(1, 8),
    max_body=st.integers(4_200, 5_000),
)
def test_each_document_is_in_one_batch_or_an_error(
    lengths: list[int], max_documents: int, max_body: int
) -> None:
    errors: list[dict[str, Any]] = []
    options = b'{"query":"q"}'
    made = list(
        batches(
            texts(*("ä" * length for length in lengths)),
            max_documents=max_documents,
            max_body_bytes=max_body,
            options_bytes=len(options),
            on_error=errors.append,
        )
    )
    indexes = [index for batch in made for index in batch.indexes]
    assert sorted([*indexes, *(error["index"] for error in errors)]) == list(range(len(lengths)))
    for batch in made:
        body = batch.body(options)
        assert len(body) <= max_body
        assert len(batch.indexes) <= max_documents
        assert [len(each["text"]) for each in json.loads(body)["documents"]] == [
            lengths[index] for index in batch.indexes
        ]
