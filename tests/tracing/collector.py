"""A trace collector for tests: it accepts OTLP over HTTP, keeps the spans, and can be made to
fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

from tests.processes import eventually

QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
"""Of a process under test: spans are sent after 50 ms."""
KINDS = {
    Sent.SPAN_KIND_INTERNAL: "internal",
    Sent.SPAN_KIND_SERVER: "server",
    Sent.SPAN_KIND_CLIENT: "client",
}


@dataclass(frozen=True, slots=True)
class Got:
    """A received span. `code` is its status: 0 unset, 2 error."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    begun: int
    ended: int
    attributes: dict[str, Any]
    links: list[str]
    code: int
    message: str


@dataclass(slots=True)
class Collector:
    """The received spans, and the treatment of the next request."""

    url: str
    raw: list[bytes] = field(default_factory=list, repr=False)
    spans: list[Got] = field(default_factory=list, repr=False)
    resources: list[dict[str, Any]] = field(default_factory=list, repr=False)
    status: int = 200
    hold: threading.Event | None = None
    """Where there is one, requests are not answered before it is set."""

    def trace(self, trace_id: str) -> list[Got]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def await_span(self, name: str, trace_id: str | None = None) -> Got:
        """Wait for a span of that name, and return the last one."""

        def found() -> list[Got]:
            return [
                span
                for span in self.spans
                if span.name == name and trace_id in (None, span.trace_id)
            ]

        eventually(found, why=lambda: f"no {name} among {[span.name for span in self.spans]}")
        return found()[-1]

    def take(self, body: bytes) -> None:
        sent = ExportTraceServiceRequest.FromString(body)
        self.raw.append(body)
        for of_resource in sent.resource_spans:
            resource = _read(of_resource.resource.attributes)
            self.resources.append(resource)
            for of_scope in of_resource.scope_spans:
                self.spans += [_got(resource["service.name"], span) for span in of_scope.spans]


def _got(service: str, span: Sent) -> Got:
    return Got(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        begun=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_read(span.attributes),
        links=[link.trace_id.hex() for link in span.links],
        code=span.status.code,
        message=span.status.message,
    )


def _read(attributes: Any) -> dict[str, Any]:
    def value(one: AnyValue) -> Any:
        return getattr(one, str(one.WhichOneof("value")))

    pairs: list[KeyValue] = list(attributes)
    return {pair.key: value(pair.value) for pair in pairs}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if collector.hold:
                collector.hold.wait()
            if collector.status == 200:
                assert self.path == "/v1/traces"
                assert self.headers["content-type"] == "application/x-protobuf"
                collector.take(body)
            self.send_response(collector.status)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield collector
    finally:
        if collector.hold:
            collector.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
