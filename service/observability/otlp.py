"""The only file that knows OpenTelemetry: spans by its SDK, sent in the background over OTLP.

Loaded only where there is an endpoint. Its provider is our own and not the process's: libraries
that would trace by themselves (FastAPI records query strings and exceptions' texts) find none.
Invariant: nothing here waits for the collector but a thread of its own; what that cannot send in
time is dropped and counted.
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

_TRACES = "/v1/traces"
_SEND_SECONDS = 10
"""How long one batch may take to be sent, second attempts included."""
_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
}


class OtlpTracer:
    """Has spans sent to the collector at `endpoint`: those of a `sample` of the requests that no
    caller has decided about."""

    def __init__(self, endpoint: str, sample: float, service: str) -> None:
        # each batch that is lost, not each attempt
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=_resource(service),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint.removesuffix("/") + _TRACES, timeout=_SEND_SECONDS)
        self._provider.add_span_processor(_Counted(_Counting(exporter)))
        self._tracer = self._provider.get_tracer("gmr-rerank", version("gmr-rerank"))

    def begin(
        self, came_from: TraceContext | None, *, trusted: bool
    ) -> tuple[TraceContext, Span | None]:
        """As `service.observability.tracing.Tracer` has it; where a caller is not trusted, its span
        is named as a link."""
        parent, links = Context(), None
        if came_from and trusted:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(_foreign(came_from)), parent)
        elif came_from:
            links = [trace.Link(_foreign(replace(came_from, state="")))]
        span = self._tracer.start_span("HTTP", parent, trace.SpanKind.SERVER, links=links)
        recorded = OtlpSpan(self._tracer, span)
        return recorded.context, recorded if span.is_recording() else None

    def close(self, seconds: float) -> None:
        """Send what is left, as far as that takes no longer."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(seconds)


class OtlpSpan:
    """A span of the SDK."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.context = _ours(span.get_span_context())

    def child(
        self, name: str, kind: Kind, attributes: Attributes, begun: int | None = None
    ) -> OtlpSpan:
        within = trace.set_span_in_context(self._span, Context())
        started = self._tracer.start_span(
            name, within, _KINDS[kind], attributes=attributes, start_time=begun
        )
        return OtlpSpan(self._tracer, started)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def link(self, context: TraceContext) -> None:
        self._span.add_link(_foreign(context))

    def fail(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(trace.StatusCode.ERROR, code)

    def end(self, ended: int | None = None) -> None:
        self._span.end(ended)


class _Counted(BatchSpanProcessor):
    """The SDK's queue before its sending thread, with a count of what came: what is neither sent
    nor lost was dropped."""

    def on_end(self, span: ReadableSpan) -> None:
        TRACE_SPANS.labels("ended").inc()
        super().on_end(span)


class _Counting(SpanExporter):
    """An exporter whose successes and failures show in the metrics."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        TRACE_SPANS.labels("sent" if result is SpanExportResult.SUCCESS else "lost").inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource(service: str) -> Resource:
    """What all spans of this process have in common; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    stand above it."""
    own: dict[str, str] = {
        "service.name": service,
        "service.version": version("gmr-rerank"),
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    return Resource.create(own).merge(OTELResourceDetector().detect())


def _foreign(context: TraceContext) -> trace.SpanContext:
    return trace.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(context.sampled),
        trace_state=trace.TraceState.from_header([context.state] if context.state else []),
    )


def _ours(context: trace.SpanContext) -> TraceContext:
    state = context.trace_state.to_header()
    return TraceContext(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        bool(context.trace_flags.sampled),
        state,
    )
