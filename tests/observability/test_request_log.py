"""The log line, the metrics, and the `Server-Timing` header of a request."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.responses import PlainTextResponse, Response

from service.errors import BY_CODE
from service.observability import logs
from service.observability.exposition import metrics_page
from service.observability.logs import log_to_stderr
from service.observability.request_context import (
    add_log_fields,
    add_stage_seconds,
    add_worker_seconds,
    stage,
)
from service.web.asgi import add_common_routes

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
PART = re.compile(r"[a-z_]+;dur=\d+\.\d")


def house(log_sample: float = 1.0) -> FastAPI:
    app = FastAPI()
    add_common_routes(app, is_ready=lambda: True, log_sample=log_sample)

    @app.get("/says/{word}")
    async def says(word: str) -> Response:
        add_log_fields(dialect="native", documents=3, tenant=None)
        with stage("parse"):
            pass
        add_stage_seconds("parse", 0.5)
        add_worker_seconds("engine", 0.25)
        return PlainTextResponse(word)

    @app.get("/refuses/{code}")
    async def refuses(code: str) -> Response:
        raise BY_CODE[code]

    app.get("/metrics")(metrics_page)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with asking(house()) as client:
        yield client


def asking(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://house")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [each.fields for each in caplog.records if each.getMessage() == "request"]  # type: ignore[attr-defined]


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rerank")


async def test_a_line_says_what_is_known_of_a_request_and_nothing_that_was_sent(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    headers = TRACED | {
        "x-request-id": "mine",
        "authorization": "Bearer secret",
        "user-agent": "secret",
    }
    await client.get("/says/secret?secret=1", headers=headers)
    (line,) = lines(caplog)
    assert line.pop("ms") >= 0
    assert line.pop("parse_ms") >= 500.0
    assert line == {
        "route": "/says/{word}",
        "status": 200,
        "dialect": "native",
        "documents": 3,
        "engine_ms": 250.0,
        "request_id": "mine",
        "trace_id": TRACE,
    }
    assert "secret" not in caplog.text


async def test_a_refusal_names_its_code(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.get("/refuses/model_not_found")
    await client.get("/nowhere")
    assert [(line["route"], line["status"], line["code"]) for line in lines(caplog)] == [
        ("/refuses/{code}", 404, "model_not_found"),
        ("unknown", 404, "not_found"),
    ]


async def test_health_and_metrics_are_logged_where_debugging_is_asked_for(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.get("/health/live")
    await client.get("/metrics")
    assert lines(caplog) == []
    caplog.set_level(logging.DEBUG, "rerank")
    await client.get("/health/live")
    assert [line["route"] for line in lines(caplog)] == ["/health/live"]


async def test_lines_can_be_left_out_but_not_those_of_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asking(house(log_sample=0)) as client:
        for path in ("/says/a", "/refuses/invalid_request", "/refuses/worker_failed"):
            await client.get(path)
    assert [line["status"] for line in lines(caplog)] == [502]
    caplog.clear()
    async with asking(house(log_sample=0.5)) as client:
        for _ in range(200):
            await client.get("/says/a")
    assert 50 < len(lines(caplog)) < 150


@pytest.mark.parametrize(
    "path",
    ["/says/a", "/refuses/internal", "/nowhere", "/health/live", "/health/ready", "/metrics"],
)
async def test_every_answer_carries_times(client: httpx.AsyncClient, path: str) -> None:
    timing = (await client.get(path)).headers["server-timing"]
    parts = timing.split(", ")
    assert all(map(PART.fullmatch, parts)), timing
    assert parts[-1].startswith("total;")


async def test_a_stage_counts_once_a_request_and_where_it_was_spent(
    client: httpx.AsyncClient,
) -> None:
    name = "rerank_stage_duration_seconds_count"
    before = count(name, stage="parse"), count(name, stage="engine")
    await client.get("/says/a")
    assert (count(name, stage="parse") - before[0], count(name, stage="engine") - before[1]) == (
        1,
        0,
    )


async def test_a_request_is_counted_by_route_dialect_and_status(client: httpx.AsyncClient) -> None:
    name = "rerank_request_duration_seconds_count"
    asked = (
        {"route": "/says/{word}", "dialect": "native", "status": "200"},
        {"route": "unknown", "dialect": "none", "status": "404"},
    )
    before = [count(name, **labels) for labels in asked]
    await client.get("/says/a")
    await client.get("/says/a/b")
    assert [
        count(name, **labels) - earlier for labels, earlier in zip(asked, before, strict=True)
    ] == [1, 1]


async def test_openmetrics_has_exemplars_that_lead_to_traces_that_exist(
    client: httpx.AsyncClient,
) -> None:
    unsampled = {"traceparent": f"00-{'1' * 32}-b7ad6b7169203331-00"}
    for headers in (TRACED, unsampled):
        await client.get("/says/a", headers=headers)
    plain = await client.get("/metrics", headers={"accept": "text/plain"})
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert TRACE not in plain.text
    asked = "application/openmetrics-text; version=1.0.0; evil=1,text/plain;version=0.0.4;q=0.5"
    open_ = await client.get("/metrics", headers={"accept": asked})
    assert (
        open_.headers["content-type"]
        == "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    )
    assert open_.text.endswith("# EOF\n")
    assert f'trace_id="{TRACE}"' in open_.text
    assert "1" * 32 not in open_.text


PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        ("application/json", PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=9.9.9", OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0x", OPENMETRICS),
        (f"application/openmetrics-text;version={'1.' * 5_000}1", OPENMETRICS),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1",
            f"{OPENMETRICS}; escaping=allow-utf-8",
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=evil",
            f"{OPENMETRICS}; escaping=underscores",
        ),
        (
            "text/plain;version=1.0.0;escaping=evil",
            "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
    ],
    ids=lambda each: each[:60],
)
async def test_a_scrapes_content_type_is_one_of_ours_whatever_is_accepted(
    client: httpx.AsyncClient, accept: str, content_type: str
) -> None:
    scrape = await client.get("/metrics", headers={"accept": accept})
    assert scrape.status_code == httpx.codes.OK
    assert scrape.headers["content-type"] == content_type
    assert "rerank_build_info" in scrape.text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def logged_to(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handlers, level = logging.root.handlers, logs.logger.level
    monkeypatch.setattr("sys.stderr", stream)
    log_to_stderr("info")
    try:
        yield
    finally:
        logging.root.handlers = handlers
        logs.logger.setLevel(level)


async def test_a_line_is_json_and_on_a_terminal_words(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in (io.StringIO(), Terminal()):
        with logged_to(stream, monkeypatch):
            await client.get("/says/a")
        (line,) = stream.getvalue().splitlines()
        if stream.isatty():
            assert re.fullmatch(
                r"\d\d:\d\d:\d\d info request route=/says/\{word\} status=200 ms=\S+"
                r" dialect=native .*",
                line,
            )
        else:
            assert json.loads(line)["documents"] == 3
