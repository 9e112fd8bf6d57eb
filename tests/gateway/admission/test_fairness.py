"""Large requests of one tenant beside small ones of another, over HTTP, with a worker that does one
call after the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from service.gateway.admission.keys import digest
from service.gateway.admission.queue import KEPT_PLACES
from service.gateway.app import create_gateway
from service.gateway.scoring import CHUNKS_AT_ONCE
from service.gateway.settings import GatewaySettings
from service.wire import ScoreCall
from tests.gateway.encoded_pictures import bare, encode, picture
from tests.gateway.stand_in import StandIn, reply, scored
from tests.metrics import metric_value

DOCUMENTS = 800
WORDS = "some forty words that say nothing at all " * 5
SPEED = 60_000.0
"""Documents' characters a second, a few times less than what two large requests have."""


class OneAfterTheOther(StandIn):
    """A worker of a known speed that works on one call at a time; `diary` has the queries of the
    calls in the order they began."""

    def __init__(self) -> None:
        super().__init__(self._work)
        self.diary: list[str] = []
        self._engine = asyncio.Lock()

    async def _work(self, call: ScoreCall) -> Response:
        async with self._engine:
            self.diary.append(str(call.query[0]))
            characters = 0
            for document in call.documents:
                characters += sum(len(str(part)) for part in document)
            await asyncio.sleep(characters / SPEED)
            return reply([scored(1.0)] * len(call.documents))


@asynccontextmanager
async def served(
    worker: StandIn, folder: Path, **settings: Any
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """A client for each tenant of a gateway."""
    file = folder / "keys.json"
    keys = [
        {"sha256": digest(name.encode() * 8).hex(), "tenant": name} for name in ("loud", "quiet")
    ]
    file.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    app = create_gateway(GatewaySettings(api_keys_file=file, **settings), [worker.client])
    clients = {
        name: httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://gateway",
            headers={"authorization": f"Bearer {name * 8}"},
            timeout=60,
        )
        for name in ("loud", "quiet")
    }

    async with app.router.lifespan_context(app):
        async with asyncio.timeout(10):
            while (await clients["loud"].get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield clients
    gauges = "rerank_requests_in_flight", "rerank_requests_queued", "rerank_admitted_tokens"

    assert [metric_value(gauge) for gauge in gauges] == [0, 0, 0]


def large(name: str, count: int = DOCUMENTS) -> dict[str, Any]:
    return {
        "query": name,
        "documents": [f"{number} {WORDS}" for number in range(count)],
        "cache": "bypass",
    }


def small(name: str) -> dict[str, Any]:
    return {"query": name, "documents": ["a", "b"], "cache": "bypass"}


@pytest.mark.parametrize("tenant", ["quiet", "loud"])
async def test_two_large_requests_shut_no_small_one_out(tenant: str, tmp_path: Path) -> None:
    """No small request is refused; each begins after no more calls than are in progress at a time,
    and the large ones lose nothing."""
    worker = OneAfterTheOther()
    async with served(worker, tmp_path, max_queue_ms=2_000) as clients:
        assert (await clients["loud"].post("/rerank", json=large("warm", 100))).status_code == 200
        asked = [
            asyncio.create_task(clients["loud"].post("/rerank", json=large(name)))
            for name in ("first", "second")
        ]
        while len(worker.diary) < 4:
            await asyncio.sleep(0.01)
        between = []
        statuses = []
        for number in range(4):
            before = len(worker.diary)
            statuses.append(
                (await clients[tenant].post("/rerank", json=small(f"small {number}"))).status_code
            )
            between.append(worker.diary.index(f"small {number}") - before)
            await asyncio.sleep(0.01)
        assert not all(task.done() for task in asked), "there was nothing to wait for"
        assert statuses == [200] * 4
        assert max(between) <= 2 * CHUNKS_AT_ONCE + 1, between
        answers = [await task for task in asked]
    assert [len(answer.json()["results"]) for answer in answers] == [DOCUMENTS] * 2


async def test_a_large_request_of_another_tenant_has_its_half(tmp_path: Path) -> None:
    """Two requests were there before it; it ends when at most as much work as its own has been done
    for them."""
    worker = OneAfterTheOther()
    async with served(worker, tmp_path, max_queue_ms=2_000) as clients:
        assert (await clients["loud"].post("/rerank", json=large("warm", 100))).status_code == 200
        loud = [
            asyncio.create_task(clients["loud"].post("/rerank", json=large(f"loud {name}")))
            for name in range(2)
        ]
        while len(worker.diary) < 6:
            await asyncio.sleep(0.01)
        begun = len(worker.diary)
        answer = await clients["quiet"].post("/rerank", json=large("quiet", DOCUMENTS // 2))
        assert answer.status_code == 200
        calls = worker.diary[begun:]
        assert calls.count("quiet") >= len(calls) // 2 - 2 * CHUNKS_AT_ONCE - KEPT_PLACES // 2, (
            calls
        )
        answers = [await task for task in loud]

        assert [answer.status_code for answer in answers] == [200, 200], [
            answer.text[:200] for answer in answers
        ]


async def test_an_image_that_many_documents_show_is_decoded_once(tmp_path: Path) -> None:
    worker = OneAfterTheOther()
    same = bare(encode(picture((300, 300))))
    documents = [{"text": f"{number} {WORDS}", "image": same} for number in range(150)]

    async with served(worker, tmp_path) as clients:
        before = metric_value("rerank_images_total")
        answer = await clients["quiet"].post("/rerank", json={"query": "q", "documents": documents})
        assert answer.status_code == 200
        assert len(worker.diary) > 3, "it went out in several chunks"
        assert metric_value("rerank_images_total") == before + 1


def bombs(count: int) -> list[dict[str, str]]:
    return [{"image": bare(encode(picture((900, 901 + number))))} for number in range(count)]


@pytest.mark.parametrize(
    ("settings", "spoken", "readable"),
    [
        ({"max_request_pixels": 3 * 900 * 910}, "pixels together", lambda count: count == 3),
        ({"request_decode_ms": 100}, "decode all together", lambda count: 1 <= count < 40),
    ],
    ids=["pixels", "CPU time"],
)
async def test_the_images_of_a_request_are_bounded_all_together(
    settings: dict[str, int], spoken: str, readable: Callable[[int], bool], tmp_path: Path
) -> None:
    """A request that skips errors has the first ones scored; each of the others is named with its
    bound."""
    async with served(OneAfterTheOther(), tmp_path, **settings) as clients:
        body = {"query": "q", "documents": bombs(40), "on_error": "skip"}
        answer = (await clients["quiet"].post("/rerank", json=body)).json()
        assert readable(len(answer["results"])), answer
        assert len(answer["results"]) + len(answer["errors"]) == 40
        assert {each["code"] for each in answer["errors"]} == {"image_too_large"}
        assert all(spoken in each["message"] for each in answer["errors"])
        refused = await clients["quiet"].post(
            "/rerank", json=body | {"on_error": "fail", "query": "r"}
        )

        assert (refused.status_code, refused.json()["code"]) == (400, "image_too_large")
        assert refused.json()["errors"][0]["loc"][0] == "documents"
