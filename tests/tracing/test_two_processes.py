"""One trace over a gateway process and a worker process, as a collector receives it: complete,
connected, and without content of requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.observability.metrics import STAGES
from service.observability.tracing import TraceContext
from tests.processes import Fleet, eventually, fleet
from tests.tracing.collector import QUICK, Collector, Got, collecting

pytestmark = pytest.mark.slow

CALLER = TraceContext(
    "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True, state="vendor=opaque"
)
CLOCK = 2_000_000
"""Nanoseconds that two clocks of one machine may be apart."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def pair(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    told = QUICK | {"RERANK_OTLP_ENDPOINT": collector.url, "RERANK_TRACE_SAMPLE": "1"}
    with fleet(
        tmp_path_factory.mktemp("pair"),
        1,
        worker=told,
        **told,
        RERANK_API_KEYS="the-key-itself-0123456789",
    ) as running:
        running.gateway.client.headers["authorization"] = "Bearer the-key-itself-0123456789"
        yield running


def ask(fleet: Fleet, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    asked = {
        "query": "how do I sort a list",
        "documents": ["Sort the list.", "A circle."],
        "cache": "bypass",
    } | body
    return fleet.gateway.client.post("/rerank", json=asked, headers=headers or {})


def trace_of(collector: Collector, answer: httpx.Response, fleet: Fleet) -> list[Got]:
    """The spans of an answer's trace, whose id is in the log, after the last one has arrived."""
    log, identity = fleet.gateway.said, answer.headers["x-request-id"]
    eventually(lambda: f'"request_id":"{identity}"' in log(), why=log)
    line = next(line for line in log().splitlines() if identity in line)
    trace_id = line.partition('"trace_id":"')[2][:32]
    assert (
        collector.await_span("POST /rerank", trace_id).attributes["http.response.status_code"]
        == answer.status_code
    )
    return collector.trace(trace_id)


def test_one_request_leaves_one_trace(pair: Fleet, collector: Collector) -> None:
    answer = ask(pair, top_n=1, cache="use")
    trace_id = trace_of(collector, answer, pair)[0].trace_id
    eventually(
        lambda: any(
            span.name + span.kind == "POST /scoreserver" for span in collector.trace(trace_id)
        )
    )
    spans = {span.name + span.kind: span for span in collector.trace(trace_id)}
    root, score = spans["POST /rerankserver"], spans["scoreinternal"]
    call, served = spans["POST /scoreclient"], spans["POST /scoreserver"]
    assert root.parent_id == ""
    assert (call.parent_id, served.parent_id) == (score.span_id, call.span_id)
    assert {spans[f"{name}internal"].parent_id for name in ("queue", "engine")} == {served.span_id}
    stages = {span.name for span in spans.values() if span.parent_id == root.span_id}
    assert (
        {"admit", "parse", "media", "cache_get", "score", "cache_set", "order"}
        <= stages
        <= set(STAGES)
    )
    assert {span.service for span in spans.values()} == {"gmr-rerank-gateway", "gmr-rerank-worker"}
    for span in spans.values():
        parent = next((each for each in spans.values() if each.span_id == span.parent_id), root)
        assert parent.begun - CLOCK <= span.begun <= min(span.ended, parent.ended + CLOCK)
        assert span.code == 0


def test_spans_say_how_many_and_how_long(pair: Fleet, collector: Collector) -> None:
    spans = trace_of(collector, ask(pair, top_n=1, documents=["a", "b", "a"]), pair)
    root = next(span for span in spans if span.name == "POST /rerank")
    digest = root.attributes.pop("rerank.model.digest")
    assert len(digest) == 12
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/rerank",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "rerank",
        "gen_ai.request.model": "gmr-tiny",
        "gen_ai.rerank.candidate.count": 3,
        "gen_ai.rerank.top_n": 1,
        "rerank.dialect": "native",
        "rerank.images": 0,
        "rerank.pairs.cached": 0,
    }
    call = next(span for span in spans if span.kind == "client")
    assert call.attributes["gen_ai.rerank.candidate.count"] == 2
    assert call.attributes["server.port"] == int(pair.workers[0].url.rpartition(":")[2])


def test_every_span_says_whose_it_is(pair: Fleet, collector: Collector) -> None:
    ask(pair)
    both = {"gmr-rerank-gateway", "gmr-rerank-worker"}
    eventually(lambda: {resource["service.name"] for resource in collector.resources} == both)
    assert all(
        resource["service.version"] and resource["service.instance.id"]
        for resource in collector.resources
    )
    assert len({resource["service.instance.id"] for resource in collector.resources}) == 2


def test_a_callers_trace_is_followed_into_the_worker(pair: Fleet, collector: Collector) -> None:
    answer = ask(pair, CALLER.headers())
    root = collector.await_span("POST /rerank", CALLER.trace_id)
    assert answer.status_code == httpx.codes.OK
    assert root.parent_id == CALLER.span_id
    assert collector.await_span("engine", CALLER.trace_id)
    eventually(
        lambda: f'"trace_id":"{CALLER.trace_id}"' in pair.gateway.said(), why=pair.gateway.said
    )


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        "00-0-0-01",
        CALLER.headers()["traceparent"].upper(),
        "<script>",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
    ],
)
def test_what_is_no_trace_begins_a_new_one(pair: Fleet, collector: Collector, spoilt: str) -> None:
    answer = ask(pair, {"traceparent": spoilt, "tracestate": "a=1"})
    (root,) = [span for span in trace_of(collector, answer, pair) if span.name == "POST /rerank"]
    assert root.parent_id == ""
    assert root.trace_id not in ("0" * 32, CALLER.trace_id)


def test_an_error_is_named_by_its_code(pair: Fleet, collector: Collector) -> None:
    spans = trace_of(collector, ask(pair, documents=[]), pair)
    root = next(span for span in spans if span.name == "POST /rerank")
    assert (root.code, root.attributes["error.type"]) == (0, "invalid_request")
    late = trace_of(collector, ask(pair, documents=["late"] * 200, timeout_ms=1), pair)
    root = next(span for span in late if span.name == "POST /rerank")
    assert (root.code, root.message, root.attributes["error.type"]) == (
        2,
        "deadline_exceeded",
        "deadline_exceeded",
    )


def test_paths_that_are_none_of_ours_have_no_name(pair: Fleet, collector: Collector) -> None:
    pair.gateway.client.get("/wp-admin/secret-path")
    got = collector.await_span("GET unknown")
    assert got.attributes["http.route"] == "unknown"
    assert not any(b"secret-path" in sent for sent in collector.raw)


def test_machines_that_ask_every_second_leave_no_spans(pair: Fleet, collector: Collector) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/info"):
        assert pair.gateway.client.get(path).status_code == httpx.codes.OK
    ask(pair, CALLER.headers())
    collector.await_span("POST /rerank", CALLER.trace_id)
    assert not [
        span
        for span in collector.spans
        if any(name in span.name for name in ("health", "metrics", "info"))
    ]


# Hypothesis also draws constants of the code, such as a span's name: the sign makes each text new.
texts = (
    st.text(min_size=8, max_size=60)
    .filter(lambda text: len(text.strip()) >= 8 and len(set(text)) > 4)
    .map(lambda text: f"\u2042{text}")
)


@settings(max_examples=15, deadline=None)
@given(query=texts, document=texts, instruction=texts, identity=texts)
def test_no_span_tells_what_was_asked(
    pair: Fleet, collector: Collector, query: str, document: str, instruction: str, identity: str
) -> None:
    asked = {
        "query": query,
        "documents": [{"id": identity, "text": document}],
        "instruction": instruction,
        "return_documents": True,
    }
    answer = ask(pair, **asked, cache="use")
    trace_of(collector, answer, pair)
    sent = b"".join(collector.raw)
    assert all(
        text.encode() not in sent
        for text in (query, document, instruction, identity, "the-key-itself-0123456789")
    )


def test_what_was_sent_is_counted(pair: Fleet, collector: Collector) -> None:
    ask(pair)
    counted = [
        pair.gateway.metric(f'rerank_trace_spans_total{{outcome="{outcome}"}}')
        for outcome in ("ended", "sent", "lost")
    ]
    assert counted[0] >= counted[1] > 0
    assert counted[2] == 0
