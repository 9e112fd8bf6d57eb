"""A traced call has spans down into the engine: the worker's of the call and, where vLLM is set to
send traces, its own of every pair."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from service.observability.tracing import TraceContext
from service.wire import MSGPACK
from tests.tracing.collector import Collector
from tests.worker.calls import as_call
from tests.worker.engines.vllm.engine_worker import EngineWorker, eventually

pytestmark = pytest.mark.slow

SECRETS = ("what nobody else may read", "a document that is private")
CALLER = TraceContext("6bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True)
OTHER = TraceContext("7bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=False)


async def test_every_pair_of_a_traced_call_leaves_a_span(
    chunked: EngineWorker, collector: Collector
) -> None:
    call = as_call("find", (SECRETS[0],), [(f"{SECRETS[1]} {number}",) for number in range(3)])
    for caller in (OTHER, CALLER):
        headers = {"content-type": MSGPACK} | caller.headers()
        answer = await chunked.client.post(
            "/score", content=msgspec.msgpack.encode(call), headers=headers
        )
        assert answer.status_code == httpx.codes.OK

    eventually(lambda: len(collector.trace(CALLER.trace_id)) == 6)
    spans = collector.trace(CALLER.trace_id)
    (served,) = [span for span in spans if span.name == "POST /score"]
    assert served.parent_id == CALLER.span_id
    assert sorted(
        (span.name, span.service) for span in spans if span.parent_id == served.span_id
    ) == [
        ("engine", "gmr-rerank-worker"),
        *[("llm_request", "gmr-rerank-engine")] * 3,
        ("queue", "gmr-rerank-worker"),
    ]
    assert {span.trace_id for span in collector.spans} == {CALLER.trace_id}

    for secret in SECRETS:
        assert not any(secret.encode() in sent for sent in collector.raw)
