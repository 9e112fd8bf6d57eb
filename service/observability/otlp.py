"""Spans by OpenTelemetry's SDK, sent over OTLP in the background.

The only module that imports OpenTelemetry; it is imported only where an endpoint is configured. Its
tracer provider is not registered as the global one, so libraries that trace by themselves (FastAPI
records query strings and exceptions' texts) record nothing. Invariant: only a background thread
waits for the collector; spans that it cannot send in time are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from service.observability.metrics import TRACE_SPANS
from service.observability.tracing import Attributes, Kind, Span, TraceContext

_TRACES_PATH = "/v1/traces"
_EXPORT_SECONDS = 10
"""The timeout of sending one batch, retries included."""
_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
}


class OtlpTracer:
    """A `service.observability.tracing.Tracer` whose spans are sent to the collector at `endpoint`.

    It records the share `sample` of the requests whose caller makes no sampling decision.
    """

    def __init__(self, endpoint: str, sample: float, service: str) -> None:
        # the exporter warns at each attempt; one line for each lost batch is enough
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)

        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=_resource(service),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(
            endpoint.removesuffix("/") + _TRACES_PATH, timeout=_EXPORT_SECONDS
        )
        self._provider.add_span_processor(_CountingProcessor(_CountingExporter(exporter)))
        self._tracer = self._provider.get_tracer("gmr-rerank", version("gmr-rerank"))

    def start_server_span(
        self, parent: TraceContext | None, *, trusted: bool
    ) -> tuple[TraceContext, Span | None]:
        """Start a request's span; the span of a caller that is not trusted becomes a link."""
        context, links = Context(), None
        if parent and trusted:
            remote = trace.NonRecordingSpan(_to_otel(parent))
            context = trace.set_span_in_context(remote, context)
        elif parent:
            links = [trace.Link(_to_otel(replace(parent, state="")))]

        started = self._tracer.start_span("HTTP", context, trace.SpanKind.SERVER, links=links)
        span = OtlpSpan(self._tracer, started)
        return span.context, span if started.is_recording() else None

    def close(self, seconds: float) -> None:
        """Send the remaining spans, as far as that takes no longer than `seconds`."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(seconds)


class OtlpSpan:
    """A `service.observability.tracing.Span` of OpenTelemetry's SDK."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.context = _from_otel(span.get_span_context())

    def start_child(
        self, name: str, kind: Kind, attributes: Attributes, start: int | None = None
    ) -> OtlpSpan:
        parent = trace.set_span_in_context(self._span, Context())
        child = self._tracer.start_span(
            name, parent, _KINDS[kind], attributes=attributes, start_time=start
        )
        return OtlpSpan(self._tracer, child)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set_attributes(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def add_link(self, context: TraceContext) -> None:
        self._span.add_link(_to_otel(context))

    def set_error(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(trace.StatusCode.ERROR, code)

    def end(self, end: int | None = None) -> None:
        self._span.end(end)


class _CountingProcessor(BatchSpanProcessor):
    """The SDK's queue of ended spans, which counts them: a span that is neither sent nor lost was
    dropped because the queue was full."""

    def on_end(self, span: ReadableSpan) -> None:
        TRACE_SPANS.labels("ended").inc()
        super().on_end(span)


class _CountingExporter(SpanExporter):
    """An exporter that counts the spans sent, and those lost by a failed export."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        outcome = "sent" if result is SpanExportResult.SUCCESS else "lost"
        TRACE_SPANS.labels(outcome).inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource(service: str) -> Resource:
    """The attributes of all spans of this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    override them."""
    own: dict[str, str] = {
        "service.name": service,
        "service.version": version("gmr-rerank"),
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    return Resource.create(own).merge(OTELResourceDetector().detect())


def _to_otel(context: TraceContext) -> trace.SpanContext:
    return trace.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(context.sampled),
        trace_state=trace.TraceState.from_header([context.state] if context.state else []),
    )


def _from_otel(context: trace.SpanContext) -> TraceContext:
    return TraceContext(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        bool(context.trace_flags.sampled),
        context.trace_state.to_header(),
    )
