"""Probes of a process that is not ready: answered as before, and no request has failed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import NoWorker, Overloaded
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from service.observability.exposition import metrics_page
from service.web.asgi import OVER_CONNECTION_LIMIT, add_common_routes
from service.worker.app import create_worker
from service.worker.engines.loading import create_engine
from service.worker.settings import WorkerSettings
from tests.conftest import TINY

READY, LIVE = "/health/ready", "/health/live"


def unready_gateway() -> FastAPI:
    return create_gateway(GatewaySettings(), [])


def unready_worker() -> FastAPI:
    settings = WorkerSettings(model=str(TINY), device="cpu", threads=1)
    return create_worker(settings, create_engine(settings))


def stuck() -> FastAPI:
    app = FastAPI()
    add_common_routes(app, is_ready=lambda: False, is_alive=lambda: False)
    app.get("/metrics")(metrics_page)
    return app


def asking(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://house")


@pytest.fixture(params=[unready_gateway, unready_worker, stuck])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(request.param()) as client:
        yield client


async def failures(client: httpx.AsyncClient) -> list[str]:
    """The series of `/metrics` that count requests that failed."""
    page = (await client.get("/metrics")).text
    return [
        line
        for line in page.splitlines()
        if line.startswith(("rerank_errors_total", "rerank_shed_total"))
    ]


async def grown_since(before: list[str], client: httpx.AsyncClient) -> set[str]:
    """The series that are not what they were."""
    now = await failures(client)
    return {line.split()[0] for line, old in zip(now, before, strict=True) if line != old}


def is_no_worker(answer: httpx.Response, message: str) -> None:
    assert answer.status_code == NoWorker.status
    assert answer.json() == {
        "code": NoWorker.code,
        "message": message,
        "detail": message,
        "request_id": answer.headers["x-request-id"],
    }
    assert 1 <= int(answer.headers["retry-after"]) <= 3


async def test_a_readiness_probe_of_an_unready_process_counts_as_no_error(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rerank")
    before = await failures(client)
    answers = [await client.get(READY) for _ in range(3)]
    assert await failures(client) == before
    assert len(before) > 10
    for answer in answers:
        is_no_worker(answer, "Not ready.")

    logged = [each for each in caplog.records if getattr(each, "fields", {}).get("route") == READY]
    assert [each.levelno for each in logged] == [logging.DEBUG] * 3
    assert all("code" not in each.fields for each in logged)  # type: ignore[attr-defined]


async def test_a_liveness_probe_of_a_stuck_process_counts_as_no_error() -> None:
    async with asking(stuck()) as client:
        before = await failures(client)
        for _ in range(3):
            is_no_worker(await client.get(LIVE), "Not live.")
        assert await failures(client) == before


async def test_a_probe_of_an_unready_worker_by_its_gateway_counts_as_no_error() -> None:
    async with asking(unready_worker()) as client:
        before = await failures(client)
        for _ in range(3):
            is_no_worker(await client.get("/info"), NoWorker.message)
        assert await failures(client) == before


@pytest.mark.parametrize("path", [READY, LIVE])
async def test_probes_may_ask_by_head(client: httpx.AsyncClient, path: str) -> None:
    """Some load balancers do."""
    before = await failures(client)
    asked, got = await client.head(path), await client.get(path)
    assert asked.status_code == got.status_code
    assert await failures(client) == before


async def test_a_request_without_a_worker_counts_as_one_error() -> None:
    async with asking(unready_gateway()) as client:
        before = await failures(client)
        refused = await client.post("/rerank", json={"query": "q", "documents": ["d"]})
        assert refused.json()["code"] == NoWorker.code
        grown = await grown_since(before, client)
    assert grown == {
        'rerank_errors_total{code="no_worker"}',
        'rerank_shed_total{reason="no_worker"}',
    }


async def test_a_probe_on_a_connection_beyond_the_limit_counts_as_nothing_turned_away() -> None:
    app = unready_gateway()

    async def beyond(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {OVER_CONNECTION_LIMIT: True}}, receive, send)

    async with asking(app) as client, asking(beyond) as late:
        before = await failures(client)
        probe, refused = await late.get(LIVE), await late.get("/info")
        grown = await grown_since(before, client)
    assert probe.status_code == httpx.codes.OK
    assert refused.json()["code"] == Overloaded.code
    assert grown == {
        'rerank_errors_total{code="overloaded"}',
        'rerank_shed_total{reason="connections"}',
    }
