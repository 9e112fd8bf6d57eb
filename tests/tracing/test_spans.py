"""Spans of one process, sent to a collector: sampling, failures, links, and dropped spans."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from pydantic import ValidationError

from service.errors import WorkerFailed
from service.gateway.domain import PairOutcome
from service.gateway.media.content import Content
from service.gateway.single_flight import SingleFlight
from service.observability import tracing
from service.observability.otlp import OtlpTracer
from service.observability.request_context import stage
from service.observability.settings import TracingSettings
from service.observability.tracing import (
    TraceContext,
    current_context,
    propagation_headers,
    server_span,
    span,
)
from service.wire import Scored
from tests.metrics import metric_value
from tests.tracing.collector import QUICK, Collector, collecting

SAMPLED = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True)
UNSAMPLED = TraceContext("5bf92f3577b34da6a3ce929d0e0e4736", "10f067aa0ba902b7", sampled=False)
Start = Callable[[float], OtlpTracer]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def traced(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A function that enables tracing with a sampling rate."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    started: list[OtlpTracer] = []

    def start(sample: float) -> OtlpTracer:
        started.append(OtlpTracer(collector.url, sample, "here"))
        tracing.set_tracer(started[-1])
        return started[-1]

    yield start
    tracing.set_tracer(None)
    for tracer in started:
        tracer.close(10)


@contextmanager
def request(
    came_from: TraceContext | None = None, *, trusted: bool = True, path: str = "/rerank"
) -> Iterator[None]:
    """Handle a request."""
    headers = came_from.headers() if came_from else {}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    with server_span(path, raw, trusted=trusted):
        yield
        tracing.set_response("POST", path, 200, {})


def recorded(collector: Collector, tracer: OtlpTracer) -> list[str]:
    """The trace ids of the spans that were sent."""
    tracer.close(10)
    return [got.trace_id for got in collector.spans]


@pytest.mark.parametrize(("sample", "share"), [(0, 0), (0.25, 0.25), (1, 1)])
def test_a_share_of_requests_is_recorded(
    collector: Collector, traced: Start, sample: float, share: float
) -> None:
    tracer = traced(sample)
    for _ in range(400):
        with request():
            context = current_context.get()
            assert context is not None
            assert propagation_headers() == context.headers()
    assert len(recorded(collector, tracer)) == pytest.approx(
        400 * share, abs=60 if 0 < share < 1 else 0
    )


@pytest.mark.parametrize("sample", [0, 1])
def test_a_trusted_caller_decides(collector: Collector, traced: Start, sample: float) -> None:
    tracer = traced(sample)
    for caller in (SAMPLED, UNSAMPLED):
        with request(caller), stage("score"):
            here = current_context.get()
            assert here is not None
            assert (here.trace_id, here.sampled) == (caller.trace_id, caller.sampled)
            assert here.span_id != caller.span_id
    assert set(recorded(collector, tracer)) == {SAMPLED.trace_id}


@pytest.mark.parametrize("sample", [0, 1])
def test_a_caller_that_is_not_trusted_is_named_and_nothing_else(
    collector: Collector, traced: Start, sample: float
) -> None:
    tracer = traced(sample)
    for caller in (SAMPLED, UNSAMPLED):
        with request(caller, trusted=False):
            here = current_context.get()
            assert here is not None
            assert here.trace_id != caller.trace_id
    traces = recorded(collector, tracer)
    assert len(traces) == 2 * sample
    assert [got.links for got in collector.spans] == [[SAMPLED.trace_id], [UNSAMPLED.trace_id]][
        : len(traces)
    ]


def test_without_a_tracer_a_callers_trace_is_handed_on() -> None:
    with request(SAMPLED), stage("score"):
        assert propagation_headers() == SAMPLED.headers()
    with request():
        assert propagation_headers() == {}


def test_spans_lie_in_each_other_and_end_with_what_they_are_of(
    collector: Collector, traced: Start
) -> None:
    tracer = traced(1)
    with request():
        with stage("score"), span("POST /score", "client", {"count": 3}):
            pass
        with pytest.raises(ValueError, match="a secret"), stage("parse"):
            raise ValueError("a secret")
        with pytest.raises(WorkerFailed), stage("order"):
            raise WorkerFailed
        tracing.record_span("queue", 10.0, 10.5)
    recorded(collector, tracer)
    got = {each.name: each for each in collector.spans}
    root = got["POST /rerank"]
    assert {got[name].parent_id for name in ("score", "parse", "order", "queue")} == {root.span_id}
    assert got["POST /score"].parent_id == got["score"].span_id
    assert got["POST /score"].attributes == {"count": 3}
    assert [(got[name].code, got[name].message) for name in ("parse", "order")] == [
        (2, "ValueError"),
        (2, "worker_failed"),
    ]
    assert got["queue"].ended - got["queue"].begun == pytest.approx(5e8, rel=1e-6)
    assert not any(b"a secret" in sent for sent in collector.raw)


async def test_tasks_keep_their_own_place(collector: Collector, traced: Start) -> None:
    tracer = traced(1)

    async def share(name: str) -> None:
        with span(name):
            await asyncio.sleep(0)
            with span(f"in {name}"):
                await asyncio.sleep(0)

    with request():
        await asyncio.gather(*(share(name) for name in "abc"))
    recorded(collector, tracer)
    got = {each.name: each for each in collector.spans}
    assert all(got[f"in {name}"].parent_id == got[name].span_id for name in "abc")


async def test_who_joins_anothers_flight_names_its_span(
    collector: Collector, traced: Start
) -> None:
    tracer = traced(1)
    flights, landing = SingleFlight(), asyncio.Event()
    until = asyncio.get_running_loop().time() + 60

    async def score(
        documents: Mapping[bytes, Content],
    ) -> tuple[set[str], dict[bytes, PairOutcome]]:
        await landing.wait()
        return {"d"}, {
            key: Scored(0.0, 1, 0, truncated=False, reused_tokens=0) for key in documents
        }

    async def ask() -> str:
        with request():
            here = current_context.get()
            await flights.score({b"key": ()}, "d", until, score)
            assert here is not None
            return here.trace_id

    leading = asyncio.create_task(ask())
    await asyncio.sleep(0)
    joining = asyncio.create_task(ask())
    await asyncio.sleep(0)
    landing.set()
    leader, joiner = await leading, await joining
    recorded(collector, tracer)
    assert {got.trace_id: got.links for got in collector.spans} == {leader: [], joiner: [leader]}


def counted() -> dict[str, float]:
    """The spans of this process so far, by outcome."""
    return {
        outcome: metric_value("rerank_trace_spans_total", outcome=outcome)
        for outcome in ("ended", "sent", "lost")
    }


def test_what_cannot_be_sent_is_dropped_and_nobody_waits(
    collector: Collector, traced: Start
) -> None:
    before = counted()
    collector.hold = threading.Event()
    tracer = traced(1)
    for _ in range(6_000):
        with request():
            pass
    collector.hold.set()
    tracer.close(30)
    more = {outcome: count - before[outcome] for outcome, count in counted().items()}
    assert more["ended"] == 6_000
    assert 2_048 <= more["sent"] < 6_000
    assert more["lost"] == 0
    assert len(collector.spans) == more["sent"]


def test_closing_waits_no_longer_than_it_may(collector: Collector, traced: Start) -> None:
    collector.hold = threading.Event()
    tracer = traced(1)
    with request():
        pass
    tracer.close(0.1)
    assert collector.spans == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("otlp_endpoint", "collector:4318"),
        ("otlp_endpoint", "file:///etc/passwd"),
        ("otlp_endpoint", "http://collector/?key=1"),
        ("trace_sample", "1.5"),
        ("trace_sample", "-0.1"),
        ("trace_sample", "nan"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        TracingSettings(**{name: value})
