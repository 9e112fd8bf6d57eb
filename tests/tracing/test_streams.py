"""Traces of a stream: one of its own for each line, linked to that of the stream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.observability import tracing
from service.observability.otlp import OtlpTracer
from tests.gateway.stand_in import Reader
from tests.gateway.stream.test_endpoint import LINE, stream
from tests.gateway.test_rerank_endpoint import gateway
from tests.tracing.collector import QUICK, Collector, collecting


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that gets the spans of this process."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    with collecting() as running:
        tracer = OtlpTracer(running.url, 1.0, "here")
        tracing.set_tracer(tracer)
        yield running
        tracing.set_tracer(None)
        tracer.close(10)


async def test_each_line_has_a_trace_that_is_linked_to_the_stream(collector: Collector) -> None:
    async with gateway(Reader()) as client:
        await stream(client, LINE, LINE, LINE | {"model": "other"})
    whole = collector.await_span("POST /v1/rerank/stream")
    collector.await_span("line of a stream")
    lines = [span for span in collector.spans if span.name == "line of a stream"]
    assert len({span.trace_id for span in lines} | {whole.trace_id}) == 4
    assert [span.links for span in lines] == [[whole.trace_id]] * 3
    assert sorted(span.message for span in lines) == ["", "", "model_not_found"]
    assert {span.name for span in collector.trace(whole.trace_id)} == {whole.name}
