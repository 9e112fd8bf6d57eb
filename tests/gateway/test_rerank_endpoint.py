"""The checks of a request in their order, and that everything it held is released."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from pydantic import SecretStr
from starlette.responses import Response

from service.gateway.admission.keys import digest
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from service.wire import ScoreCall
from tests.gateway.stand_in import StandIn, never, reply, scored
from tests.metrics import metric_value

BODY = {"query": "q", "documents": ["a", "b"]}


class Gated(StandIn):
    """Answers once `go` is set; `asked` is set with its first call."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def _wait(self, call: ScoreCall) -> Response:
        self.asked.set()
        await self.go.wait()
        return reply([scored(1.0)] * len(call.documents))


@asynccontextmanager
async def gateway(
    worker: StandIn, *, ready: bool = True, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    app: FastAPI = create_gateway(GatewaySettings(**settings), [worker.client])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        async with asyncio.timeout(10):
            while ready and (await client.get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield client

    assert nothing_is_held()


def nothing_is_held() -> bool:
    gauges = (
        "rerank_requests_in_flight",
        "rerank_requests_queued",
        "rerank_admitted_tokens",
        "rerank_request_bodies_bytes",
    )
    return all(metric_value(gauge) == 0 for gauge in gauges)


def shed(reason: str) -> float:
    return metric_value("rerank_shed_total", reason=reason)


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code")


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("somebody read the body")
    yield b""


def picture(width: int = 64) -> str:
    file = BytesIO()
    Image.new("RGB", (width, width), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


async def test_without_a_ready_worker_no_body_is_read() -> None:
    worker = Gated()
    worker.info = None
    async with gateway(worker, ready=False) as client:
        before = shed("no_worker")
        answer = await client.post("/rerank", content=unread())
        assert told(answer) == (503, "no_worker")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert shed("no_worker") == before + 1


@pytest.mark.parametrize(
    ("path", "dialect"),
    [("/rerank", "native"), ("/score", "vllm-score"), ("/v1/ranking", "nim")],
)
async def test_a_failure_before_the_body_is_read_counts_as_one_of_the_paths_dialect(
    path: str, dialect: str
) -> None:
    """The error rate of reranking leaves out requests of no dialect."""
    labels = {"route": path, "dialect": dialect, "status": "503"}
    worker = Gated()
    worker.info = None
    async with gateway(worker, ready=False) as client:
        before = metric_value("rerank_request_duration_seconds_count", **labels)
        assert (await client.post(path, content=unread())).is_server_error
    assert metric_value("rerank_request_duration_seconds_count", **labels) == before + 1


async def test_when_the_line_is_full_no_body_is_read_and_no_image_decoded() -> None:
    worker = Gated()
    async with gateway(worker, capacity_tokens=1, max_queued_requests=1) as client:
        inside, waiting = (
            asyncio.create_task(client.post("/rerank", json=BODY | {"query": name}))
            for name in ("in", "wait")
        )
        async with asyncio.timeout(10):
            while metric_value("rerank_requests_queued") != 1:
                await asyncio.sleep(0.001)
        images = metric_value("rerank_images_total")
        answer = await client.post("/rerank", content=unread())
        assert told(answer) == (503, "overloaded")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        worker.go.set()

        assert [(await each).status_code for each in (inside, waiting)] == [200, 200]
        assert metric_value("rerank_images_total") == images
        assert (await client.post("/rerank", json=BODY)).status_code == 200


async def test_an_image_is_not_looked_at_before_its_request_is_admitted() -> None:
    """The error of a broken image comes only once there is room: before that, it is not opened."""
    worker = Gated()
    broken = {"query": "q", "documents": [{"image": "bm90IGFuIGltYWdl"}]}
    async with gateway(worker, capacity_tokens=1) as client:
        inside = asyncio.create_task(client.post("/rerank", json=BODY))
        await worker.asked.wait()
        assert told(await client.post("/rerank", json=broken | {"timeout_ms": 50})) == (
            504,
            "deadline_exceeded",
        )
        worker.go.set()

        assert (await inside).status_code == 200
        assert told(await client.post("/rerank", json=broken)) == (400, "invalid_image")


async def test_who_runs_out_of_time_in_the_line_gets_what_there_is_if_it_wants_that() -> None:
    worker = Gated()
    async with gateway(worker, capacity_tokens=1) as client:
        inside = asyncio.create_task(client.post("/rerank", json=BODY))
        await worker.asked.wait()
        answer = await client.post(
            "/rerank", json=BODY | {"documents": ["x", {}], "timeout_ms": 30, "on_error": "skip"}
        )
        assert answer.status_code == 200
        assert [(each["index"], each["code"]) for each in answer.json()["errors"]] == [
            (0, "deadline_exceeded"),
            (1, "empty_item"),
        ]
        assert answer.json()["results"] == []
        worker.go.set()

        assert (await inside).status_code == 200
        assert len(worker.calls) == 1, "expired work never starts"


async def test_what_is_scored_by_the_deadline_is_given_to_who_skips() -> None:
    async def half(call: ScoreCall) -> Response:
        return reply([scored(1.0), None])

    async with gateway(StandIn(half)) as client:
        answer = (await client.post("/rerank", json=BODY | {"on_error": "skip"})).json()
        assert [each["index"] for each in answer["results"]] == [0]
        assert [(each["index"], each["code"]) for each in answer["errors"]] == [
            (1, "deadline_exceeded")
        ]
        assert told(await client.post("/rerank", json=BODY | {"cache": "bypass"})) == (
            504,
            "deadline_exceeded",
        )


async def test_a_worker_that_never_answers_holds_nothing_beyond_the_deadline() -> None:
    async with gateway(StandIn(never)) as client:
        assert told(await client.post("/rerank", json=BODY | {"timeout_ms": 50})) == (
            504,
            "deadline_exceeded",
        )
        assert nothing_is_held()


async def test_bodies_are_bounded_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Gated()
    large = {"query": "q", "documents": ["x" * 40_000]}
    async with gateway(worker, max_body_bytes=60_000, max_bodies_bytes=60_000) as client:
        first = asyncio.create_task(client.post("/rerank", json=large))
        await worker.asked.wait()
        before = shed("body_budget")
        assert told(
            await client.post("/rerank", content=unread(), headers={"content-length": "40000"})
        ) == (503, "overloaded")
        parts = json.dumps(large).encode()

        async def in_parts() -> AsyncIterator[bytes]:
            for start in range(0, len(parts), 1_000):
                yield parts[start : start + 1_000]

        assert told(await client.post("/rerank", content=in_parts())) == (503, "overloaded")
        assert shed("body_budget") == before + 2
        worker.go.set()

        assert (await first).status_code == 200
        assert (await client.post("/rerank", json=large)).status_code == 200


async def test_a_body_that_cannot_be_read_takes_nothing_of_a_quota(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = {"sha256": digest(b"a").hex(), "tenant": "t", "pairs_per_second": 0.1}
    file.write_text(json.dumps({"keys": [key]}), encoding="utf-8")
    worker = Gated()
    worker.go.set()

    async with gateway(worker, api_keys_file=file) as client:

        async def asked(content: bytes) -> httpx.Response:
            return await client.post(
                "/rerank", content=content, headers={"authorization": "Bearer a"}
            )

        documents = b"[" + b",".join([b'"d"'] * 999) + b"]"
        for wrong in (b'"\xff"', b'{"image": 7}', b'{"text": ""}'):
            body = b'{"query": %s, "documents": %s}' % (wrong, documents)
            assert told(await asked(body)) in ((400, "invalid_request"), (400, "empty_item"))
        unknown = b'{"query": "q", "model": "x", "documents": %s}' % documents

        assert told(await asked(unknown)) == (404, "model_not_found")
        assert (await asked(b'{"query": "q", "documents": %s}' % documents)).status_code == 200
        assert told(await asked(b'{"query": "q", "documents": ["d"]}')) == (429, "rate_limited")


async def test_a_quota_is_the_tenants_and_is_told_in_seconds(tmp_path: Path) -> None:
    names = {"a": "tenant", "b": "tenant", "c": None}
    entries = [
        {
            "sha256": digest(key.encode()).hex(),
            "tenant": tenant,
            "pairs_per_second": 0.1 if tenant else None,
        }
        for key, tenant in names.items()
    ]
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": entries}), encoding="utf-8")
    worker = Gated()
    worker.go.set()

    async with gateway(worker, api_keys_file=file) as client:

        async def asked(key: str, content: Any = None) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}"}
            return await client.post(
                "/rerank", content=content or json.dumps(BODY), headers=headers
            )

        assert (await asked("a")).status_code == 200
        refused = await asked("b", unread())

        assert told(refused) == (429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 11
        assert (await asked("c")).status_code == 200


async def test_a_steering_field_that_is_null_is_as_if_it_were_absent() -> None:
    worker = Gated()
    worker.go.set()
    async with gateway(worker, api_keys=SecretStr("k" * 16)) as client:
        headers = {"authorization": "Bearer " + "k" * 16}
        assert (
            await client.post("/rerank", json=BODY | {"cache_salt": None}, headers=headers)
        ).status_code == 200
        assert told(
            await client.post("/rerank", json=BODY | {"cache_salt": ""}, headers=headers)
        ) == (400, "invalid_request")


async def test_a_picture_costs_what_its_header_says() -> None:
    worker = Gated()
    async with gateway(worker, capacity_tokens=10**9) as client:
        costs = []
        for width in (64, 640):
            worker.asked.clear()
            body = {"query": "q", "documents": [{"image": picture(width)}]}
            task = asyncio.create_task(client.post("/rerank", json=body))
            await worker.asked.wait()
            costs.append(metric_value("rerank_admitted_tokens"))
            worker.go.set()
            assert (await task).status_code == 200
            worker.go.clear()
        assert costs[1] > 5 * (costs[0] - 100)
        assert costs[0] < 200
