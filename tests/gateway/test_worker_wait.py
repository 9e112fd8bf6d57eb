"""Requests that wait for a worker while none is ready: they are answered once there is one, within
bounds of number, bytes and time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from service.gateway.admission.keys import digest
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.gateway.stand_in import INFO, StandIn, good
from tests.gateway.test_rerank_endpoint import BODY, gateway, shed, told, unread
from tests.metrics import metric_value

PATIENT = {"wait_for_worker_seconds": 600.0}
WAITING = "rerank_requests_waiting_for_worker"


def absent() -> StandIn:
    worker = StandIn(good)
    worker.info = None
    return worker


async def waiting(number: int) -> None:
    async with asyncio.timeout(10):
        while metric_value(WAITING) != number:
            await asyncio.sleep(0.001)


async def test_a_request_waits_for_the_first_worker_and_is_answered_by_it() -> None:
    worker = absent()
    async with gateway(worker, ready=False, **PATIENT) as client:
        asked = [
            asyncio.create_task(client.post("/rerank", json=BODY | {"query": str(number)}))
            for number in range(3)
        ]
        await waiting(3)
        assert not worker.calls
        worker.info = INFO
        answers = [await each for each in asked]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert "admit;dur=" in answers[0].headers["server-timing"]
    assert metric_value(WAITING) == 0


async def test_those_that_waited_are_not_refused_for_load_once_the_worker_is_there() -> None:
    """The queue takes one of them at a time, and lets others wait a millisecond."""
    worker, number = absent(), 20
    bounds = {"capacity_tokens": 1, "max_queued_requests": 1, "max_queue_ms": 1}
    async with gateway(worker, ready=False, **PATIENT, **bounds) as client:
        asked = [
            asyncio.create_task(client.post("/rerank", json=BODY | {"query": str(each)}))
            for each in range(number)
        ]
        await waiting(number)
        worker.info = INFO
        assert [(await each).status_code for each in asked] == [200] * number


@pytest.mark.parametrize(
    ("settings", "body"),
    [(PATIENT, BODY | {"timeout_ms": 50}), ({"wait_for_worker_seconds": 0.05}, BODY)],
    ids=["its own deadline", "the longest wait"],
)
async def test_a_wait_in_vain_ends_as_without_a_wait(
    settings: dict[str, float], body: dict[str, object]
) -> None:
    before = shed("no_worker")
    async with gateway(absent(), ready=False, **settings) as client:
        answer = await client.post("/rerank", json=body)
        assert told(answer) == (503, "no_worker")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert shed("no_worker") == before + 1
    assert metric_value(WAITING) == 0


async def test_a_request_beyond_the_places_is_refused_before_its_body_is_read() -> None:
    worker, before = absent(), shed("worker_wait_full")
    async with gateway(worker, ready=False, max_waiting_for_worker=2, **PATIENT) as client:
        asked = [asyncio.create_task(client.post("/rerank", json=BODY)) for _ in range(2)]
        await waiting(2)
        answer = await client.post("/rerank", content=unread())
        assert told(answer) == (503, "no_worker")
        assert "a request waits up to 600 seconds" in answer.json()["message"]
        assert shed("worker_wait_full") == before + 1
        worker.info = INFO
        assert [(await each).status_code for each in asked] == [200, 200]


async def test_the_bytes_of_those_that_wait_are_bounded() -> None:
    worker, large = absent(), {"query": "q", "documents": ["a" * 3_000]}
    bounds = {"max_waiting_for_worker_bytes": 8_192}
    async with gateway(worker, ready=False, **bounds, **PATIENT) as client:
        first = asyncio.create_task(client.post("/rerank", json=large))
        await waiting(1)
        before = shed("worker_wait_full")
        refused = [await client.post("/rerank", json=large) for _ in range(2)]
        assert told(refused[-1]) == (503, "no_worker")
        assert shed("worker_wait_full") > before
        worker.info = INFO
        assert (await first).status_code == 200


async def test_one_tenant_leaves_places_to_others(tmp_path: Path) -> None:
    keys = [
        {"sha256": digest(name.encode()).hex(), "name": name, "tenant": name} for name in ("a", "b")
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    worker, bounds = absent(), {"max_waiting_for_worker": 4}

    def ask(client: httpx.AsyncClient, name: str) -> asyncio.Task[httpx.Response]:
        headers = {"authorization": f"Bearer {name}"}
        return asyncio.create_task(client.post("/rerank", json=BODY, headers=headers))

    settings = {"api_keys_file": tmp_path / "keys.json"}
    async with gateway(worker, ready=False, **settings, **bounds, **PATIENT) as client:
        asked = [ask(client, "a") for _ in range(3)]
        await waiting(3)
        assert told(await ask(client, "a")) == (503, "no_worker")
        asked.append(ask(client, "b"))
        await waiting(4)
        worker.info = INFO
        assert [(await each).status_code for each in asked] == [200] * 4


async def test_a_client_that_disconnects_leaves_its_place() -> None:
    async with gateway(absent(), ready=False, **PATIENT) as client:
        asked = asyncio.create_task(client.post("/rerank", json=BODY))
        await waiting(1)
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
        await waiting(0)


async def test_a_request_whose_client_hangs_up_while_it_waits_costs_no_pairs(
    tmp_path: Path,
) -> None:
    key = {"sha256": digest(b"a").hex(), "name": "a", "pairs_per_second": 0.001}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key]}))
    headers = {"authorization": "Bearer a", "content-type": "application/json"}
    body = json.dumps(BODY).encode()
    hung_up = asyncio.Event()

    async def messages() -> AsyncIterator[Message]:
        yield {"type": "http.request", "body": body, "more_body": False}
        await hung_up.wait()
        while True:
            yield {"type": "http.disconnect"}

    async def unsent(message: Message) -> None:
        raise AssertionError("an answer to a client that hung up")

    worker = absent()
    settings = GatewaySettings(api_keys_file=tmp_path / "keys.json", **PATIENT)
    app = create_gateway(settings, [worker.client])
    async with app.router.lifespan_context(app):
        request = httpx.Request("POST", "http://gateway/rerank", headers=headers, content=body)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/rerank",
            "raw_path": b"/rerank",
            "query_string": b"",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        asked = asyncio.ensure_future(app(scope, messages().__anext__, unsent))
        await waiting(1)
        hung_up.set()
        await asked
        await waiting(0)

        worker.info = INFO
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://gateway"
        ) as client:
            await ready_says(client, None)
            answers = [await client.post("/rerank", json=BODY, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


async def test_a_line_of_a_stream_waits_too() -> None:
    worker = absent()

    async def lines() -> AsyncIterator[bytes]:
        yield json.dumps(BODY | {"id": "one"}).encode() + b"\n"
        async with asyncio.timeout(10):
            while metric_value("rerank_stream_lines_in_flight") != 1:
                await asyncio.sleep(0.001)
        worker.info = INFO

    async with gateway(worker, ready=False, **PATIENT) as client:
        answer = await client.post("/v1/rerank/stream", content=lines())
        assert answer.status_code == 200
        assert [len(json.loads(line)["results"]) for line in answer.text.splitlines()] == [2]


async def test_health_and_models_say_that_there_is_no_worker() -> None:
    worker = absent()
    settings = {"model_aliases": {"gpt": "m"}} | PATIENT
    async with gateway(worker, ready=False, **settings) as client:
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert ready.json()["detail"].startswith("No worker is ready; a request waits up to 600")
        assert (await client.get("/ping")).json() == ready.json()
        for path in ("/v1/models", "/v1/models/m", "/info"):
            answer = await client.get(path)
            assert told(answer) == (503, "no_worker")
            assert "since this gateway started" in answer.json()["message"]

        worker.info = INFO
        await ready_says(client, None)
        served = (await client.get("/v1/models")).json()["data"]
        assert [entry["id"] for entry in served] == ["m", "gpt"]

        worker.info = None
        await ready_says(client, ready.json()["detail"])
        gone = (await client.get("/v1/models")).json()["data"]
        assert gone == [entry | {"ready": False} for entry in served]
        assert (await client.get("/v1/models/gpt")).json() == gone[1]
        assert told(await client.get("/v1/models/other")) == (404, "model_not_found")
        info = (await client.get("/info")).json()
        assert (info["model"], info["ready"]) == ("m", False)


async def ready_says(client: httpx.AsyncClient, detail: str | None) -> None:
    """Wait until the health route says so."""
    async with asyncio.timeout(10):
        while (await client.get("/health/ready")).json().get("detail") != detail:
            await asyncio.sleep(0.01)
