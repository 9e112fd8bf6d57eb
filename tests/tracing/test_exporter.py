"""A gateway whose collector is unreachable, hangs or refuses: it serves requests, counts the
lost spans, and shuts down in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port
from tests.processes import Gmr, eventually
from tests.tracing.collector import QUICK, collecting

pytestmark = pytest.mark.slow

LOST = 'rerank_trace_spans_total{outcome="lost"}'
ENDED = 'rerank_trace_spans_total{outcome="ended"}'


@contextmanager
def gateway(folder: Path, **settings: str) -> Iterator[Gmr]:
    """A gateway without a worker, which serves its pages only."""
    with Gmr(
        "gateway",
        "--workers",
        f"http://127.0.0.1:{free_port()}",
        log=folder / "gateway",
        **settings,
    ) as running:
        eventually(lambda: running.status("/health/live") == httpx.codes.OK, why=running.said)
        yield running


def traced(url: str) -> dict[str, str]:
    return {"RERANK_OTLP_ENDPOINT": url, "RERANK_TRACE_SAMPLE": "1"}


def ask(gateway: Gmr, times: int = 20) -> None:
    assert {gateway.status("/docs") for _ in range(times)} == {httpx.codes.OK}
    eventually(lambda: gateway.metric(ENDED) == times)


def test_a_collector_that_is_not_there(tmp_path: Path) -> None:
    with gateway(tmp_path, **traced(f"http://127.0.0.1:{free_port()}"), **QUICK) as running:
        ask(running)
        assert running.end() == 0


def test_a_collector_that_hangs(tmp_path: Path) -> None:
    with collecting() as collector, gateway(tmp_path, **traced(collector.url), **QUICK) as running:
        collector.hold = threading.Event()
        ask(running)
        assert running.end() == 0


def test_a_collector_that_refuses(tmp_path: Path) -> None:
    with collecting() as collector, gateway(tmp_path, **traced(collector.url), **QUICK) as running:
        collector.status = 400
        ask(running)
        eventually(lambda: running.metric(LOST) == 20)
        assert "Failed to export" in running.said()


def test_the_last_spans_are_sent_before_the_end(tmp_path: Path) -> None:
    # which sends every five seconds
    with collecting() as collector, gateway(tmp_path, **traced(collector.url)) as running:
        ask(running, 3)
        assert running.end() == 0
        assert [span.name for span in collector.spans] == ["GET /docs"] * 3


@pytest.mark.parametrize("on", [False, True])
def test_without_an_endpoint_nothing_that_sends_is_imported(tmp_path: Path, on: bool) -> None:
    settings = traced(f"http://127.0.0.1:{free_port()}") if on else {}
    with gateway(tmp_path, **settings, PYTHONPROFILEIMPORTTIME="1") as running:
        assert running.status("/docs") == httpx.codes.OK
        said = running.said()
    # FastAPI and redis-py import OpenTelemetry's API and its metrics by themselves, where they are
    # installed
    assert [
        name in said
        for name in (
            "service.observability.otlp",
            "opentelemetry.sdk.trace",
            "opentelemetry.exporter",
        )
    ] == [on] * 3


def test_an_endpoint_with_a_password_is_refused_and_not_repeated(tmp_path: Path) -> None:
    address = "http://me:secret@collector:4318"
    with Gmr(
        "gateway",
        "--workers",
        "http://127.0.0.1:1",
        log=tmp_path / "log",
        RERANK_OTLP_ENDPOINT=address,
    ) as refused:
        assert refused.wait() == 2
        assert "OTEL_EXPORTER_OTLP_HEADERS" in refused.said()
        assert "secret" not in refused.said()
