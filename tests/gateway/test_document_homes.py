"""Documents that prompts begin with, over HTTP: their homes under cancellation, for two tenants and
with a replaced model, and the admission of what is computed of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from msgspec import structs
from starlette.responses import Response

from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from service.wire import ScoreCall, Scored, WorkerInfo
from tests.gateway.load import DOCUMENT_FIRST
from tests.gateway.stand_in import StandIn, first_parts, reply
from tests.metrics import metric_value

TOKENS, HOT_TOKENS = 130, 30
DOCUMENTS = [f"document {number} " + "word " * 80 for number in range(12)]
TWO = structs.replace(DOCUMENT_FIRST, digest="sha256:" + 64 * "2")


class Keeper(StandIn):
    """A worker that keeps the beginnings of prompts, by salt and document, and answers a call once
    `go` is set."""

    def __init__(self, info: WorkerInfo = DOCUMENT_FIRST) -> None:
        super().__init__(self.score_documents, info)
        self.digest = info.digest
        self.kept: set[tuple[str, str | int]] = set()
        self.go = asyncio.Event()
        self.go.set()
        self.given_up = 0

    async def score_documents(self, call: ScoreCall) -> Response:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        pairs = [self._pair(call.cache_salt, document) for document in first_parts(call)]
        return reply(pairs, self.digest)

    def _pair(self, salt: str, document: str | int) -> Scored:
        known = (salt, document) in self.kept
        self.kept.add((salt, document))
        number = float(str(document).split()[1])
        return Scored(
            number, TOKENS, 0, truncated=False, reused_tokens=known * (TOKENS - HOT_TOKENS)
        )


@asynccontextmanager
async def gateway(workers: Sequence[StandIn], **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app: FastAPI = create_gateway(GatewaySettings(**settings), [each.client for each in workers])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        async with asyncio.timeout(10):
            while metric_value("rerank_workers", state="ready") < len(workers):
                await asyncio.sleep(0.01)
        yield client


async def ask(
    client: httpx.AsyncClient, query: str, documents: Sequence[str] = DOCUMENTS, key: str = ""
) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"query": query, "documents": documents}
    answer = await client.post("/rerank", json=body, headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    content: dict[str, Any] = answer.json()
    assert [each["logit"] for each in content["results"]] == [
        float(number) for number in reversed(range(len(documents)))
    ]
    return content


def sent_to(worker: StandIn) -> set[str | int]:
    """The documents that a worker was sent since this was last called."""
    calls, worker.calls[:] = list(worker.calls), []
    return {document for call in calls for document in first_parts(call)}


def reused_tokens() -> float:
    return metric_value("rerank_prompt_tokens_total", source="prefix")


async def test_documents_are_reused_under_new_queries_and_never_across_tenants() -> None:
    workers = [Keeper(), Keeper()]
    keys = ["a" * 32, "b" * 32]
    async with gateway(workers, api_keys=",".join(keys)) as client:
        for key in keys:
            before = reused_tokens()
            await ask(client, "first", key=key)
            assert reused_tokens() == before, "the other tenant's documents help nobody"
            await ask(client, "second", key=key)
            reused = (reused_tokens() - before) / (TOKENS - HOT_TOKENS)
            assert reused >= 0.75 * len(DOCUMENTS), "a few may be sent elsewhere to even out loads"

    salts = {call.cache_salt for worker in workers for call in worker.calls}
    assert len(salts) == 2
    assert "" not in salts


async def test_a_client_that_goes_leaves_no_load_and_its_documents_their_homes() -> None:
    workers = [Keeper(), Keeper()]
    async with gateway(workers) as client:
        for worker in workers:
            worker.go.clear()
        request = asyncio.create_task(ask(client, "first"))
        async with asyncio.timeout(10):
            while not all(worker.calls for worker in workers):
                await asyncio.sleep(0.01)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        async with asyncio.timeout(10):
            while metric_value("rerank_admitted_tokens") or not all(
                worker.given_up for worker in workers
            ):
                await asyncio.sleep(0.01)

        before = [sent_to(worker) for worker in workers]
        for worker in workers:
            worker.go.set()
        await ask(client, "second")
        assert [sent_to(worker) for worker in workers] == before


async def test_a_model_that_is_replaced_in_a_request_scores_all_of_it_and_moves_no_home() -> None:
    workers = [Keeper(), Keeper()]

    async def last_of_its_model(call: ScoreCall) -> Response:
        answer = await workers[1].score_documents(call)
        workers[1].answer = workers[1].score_documents
        workers[1].digest, workers[1].info = TWO.digest, TWO
        return answer

    async with gateway(workers) as client:
        await ask(client, "first")
        before = [sent_to(worker) for worker in workers]
        workers[0].digest, workers[0].info = TWO.digest, TWO
        workers[1].answer = last_of_its_model
        content = await ask(client, "second")
        assert content["meta"]["model_digest"] == TWO.digest

        workers[1].digest, workers[1].info = TWO.digest, TWO
        async with asyncio.timeout(10):
            while metric_value("rerank_model_workers", model="m", digest=12 * "2") < 2:
                await asyncio.sleep(0.01)
        for worker in workers:
            sent_to(worker)
        await ask(client, "third")
        assert [sent_to(worker) for worker in workers] == before


async def test_hot_documents_are_admitted_for_the_part_that_is_computed() -> None:
    worker = Keeper()
    costs = []
    async with gateway([worker]) as client:
        for number in range(40):
            if number in (0, 39):
                worker.go.clear()
            request = asyncio.create_task(ask(client, f"query {number}", DOCUMENTS[:8]))
            if number in (0, 39):
                async with asyncio.timeout(10):
                    while len(worker.calls) <= number:
                        await asyncio.sleep(0.01)
                costs.append(metric_value("rerank_admitted_tokens"))
                worker.go.set()
            await request

    cold, hot = costs
    assert HOT_TOKENS / TOKENS < hot / cold < 0.4
