"""The trace of a request: W3C trace context, and the spans of the request.

Does not depend on OpenTelemetry: `service.observability.otlp` exports spans, and is imported only
where an endpoint is configured. A span that is not recorded costs one read of a context variable.
Invariant: a client's `traceparent` is accepted only if it is well formed, character by character;
and spans hold counts and durations, never what a user sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["internal", "server", "client"]
AttributeValue = str | int | float | bool
Attributes = Mapping[str, AttributeValue]
LogFields = Mapping[str, str | int | float | None]
Headers = Iterable[tuple[bytes, bytes]]
"""Request headers as ASGI has them: names in lower case."""

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1
_MAX_STATE = 512
_MAX_MEMBERS = 32
_KEY = rb"[a-z0-9][a-z0-9_*/-]{0,240}(?:@[a-z][a-z0-9_*/-]{0,13})?"
_VALUE = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(b"(" + _KEY + b")=" + _VALUE)
_SERVER_ERROR = 500
_UNTRACED = ("/health", "/.well-known", "/ping", "/v1/health", "/metrics", "/info")
"""Paths without spans: probes and scrapes request them every second."""
_ATTRIBUTES = {
    "model": "gen_ai.request.model",
    "documents": "gen_ai.rerank.candidate.count",
    "top_n": "gen_ai.rerank.top_n",
    "dialect": "rerank.dialect",
    "images": "rerank.images",
    "cached": "rerank.pairs.cached",
    "errors": "rerank.pairs.failed",
    "digest": "rerank.model.digest",
    "code": "error.type",
}
"""Span attributes by the field of the log line that they repeat; other fields are left out.
`gen_ai.rerank.*` are names proposed to OpenTelemetry's semantic conventions."""
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The identity of a span as it is propagated: trace id (32 hex digits), span id (16), whether
    the trace is sampled, and the vendors' `tracestate`."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    def headers(self) -> dict[str, str]:
        """The headers that propagate this context to the next service."""
        headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"}
        if self.state:
            headers["tracestate"] = self.state
        return headers


def read_context(headers: Headers) -> TraceContext | None:
    """The context in the headers `traceparent` and `tracestate`; None if `traceparent` is absent,
    malformed, or there several times."""
    parents = [value for name, value in headers if name == b"traceparent"]
    found = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if not found or not int(found[1], 16) or not int(found[2], 16):
        return None

    states = [value for name, value in headers if name == b"tracestate"]
    sampled = bool(int(found[3], 16) & _SAMPLED)
    return TraceContext(found[1].decode(), found[2].decode(), sampled, _read_state(states))


def _read_state(headers: Sequence[bytes]) -> str:
    """A `tracestate` from its headers; empty unless it is well formed and has at most 512
    characters and 32 members."""
    joined = b",".join(headers)
    if len(joined) > _MAX_STATE:
        return ""

    members: list[bytes] = []
    keys: set[bytes] = set()
    for entry in joined.split(b","):
        member = entry.strip(b" \t")
        if not member:
            continue
        found = _MEMBER.fullmatch(member)
        if not found:
            return ""
        members.append(member)
        keys.add(found[1])
    if len(keys) < len(members) or len(members) > _MAX_MEMBERS:
        return ""
    return b",".join(members).decode()


class Span(Protocol):
    """A recorded span: one operation of a request, with its start and end."""

    @property
    def context(self) -> TraceContext: ...

    def start_child(
        self, name: str, kind: Kind, attributes: Attributes, start: int | None = None
    ) -> Span:
        """Start a span within this one, now or at a time in nanoseconds since 1970."""
        ...

    def rename(self, name: str) -> None: ...

    def set_attributes(self, attributes: Attributes) -> None: ...

    def add_link(self, context: TraceContext) -> None:
        """Refer to a span of another trace."""
        ...

    def set_error(self, code: str) -> None:
        """Mark the operation as failed."""
        ...

    def end(self, end: int | None = None) -> None:
        """End the span, now or at a time in nanoseconds since 1970."""
        ...


class Tracer(Protocol):
    """Starts the spans of requests, and decides which of them are recorded."""

    def start_server_span(
        self, parent: TraceContext | None, *, trusted: bool
    ) -> tuple[TraceContext, Span | None]:
        """Start a request's span; it is None if the request is not recorded.

        A trusted parent decides whether the request is recorded. Otherwise the request starts a
        trace of its own.
        """
        ...


current_context: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
"""The context of the current span, recorded or not: for log lines, and for calls to a worker."""

_current_span: ContextVar[Span | None] = ContextVar("span", default=None)
_tracer: Tracer | None = None


def set_tracer(tracer: Tracer | None) -> None:
    """Set the tracer of this process; None records nothing."""
    global _tracer  # noqa: PLW0603  # one per process, as are its log and its metrics
    _tracer = tracer


@contextmanager
def server_span(path: str, headers: Headers, *, trusted: bool) -> Iterator[None]:
    """Trace the handling of a request; its span, if it is recorded, is the current one meanwhile.

    If the caller is trusted, its `traceparent` decides whether the request is recorded.
    """
    context, span = read_context(headers), None
    if _tracer is not None and not path.startswith(_UNTRACED):
        context, span = _tracer.start_server_span(context, trusted=trusted)

    tokens = current_context.set(context), _current_span.set(span)
    try:
        yield
    finally:
        current_context.reset(tokens[0])
        _current_span.reset(tokens[1])
        if span is not None:
            span.end()


def set_response(method: str, route: str, status: int, fields: LogFields) -> None:
    """Give the request's span its name and attributes, from the route and the log fields.

    `route` is a route's own path, never the path that was requested.
    """
    span = _current_span.get()
    if span is None:
        return

    if method not in _METHODS:
        method = "_OTHER"
    span.rename(f"{'HTTP' if method == '_OTHER' else method} {route}")

    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
    }
    if "documents" in fields:
        attributes["gen_ai.operation.name"] = "rerank"
    for field, attribute in _ATTRIBUTES.items():
        value = fields.get(field)
        if value is not None:
            attributes[attribute] = value
    span.set_attributes(attributes)

    if status >= _SERVER_ERROR:
        span.set_error(str(fields.get("code") or status))


@contextmanager
def span(
    name: str, kind: Kind = "internal", attributes: Attributes | None = None
) -> Iterator[Span | None]:
    """A span within the current one; None if that is not recorded.

    An exception marks the span as failed, with the error's code or the name of its class.
    """
    parent = _current_span.get()
    if parent is None:
        yield None
        return

    child = parent.start_child(name, kind, attributes or {})
    tokens = current_context.set(child.context), _current_span.set(child)
    try:
        yield child
    except BaseException as failure:
        child.set_error(getattr(failure, "code", type(failure).__name__))
        raise
    finally:
        current_context.reset(tokens[0])
        _current_span.reset(tokens[1])
        child.end()


def record_span(name: str, start: float, end: float) -> None:
    """Record a span of the past within the current one; times are those of `time.perf_counter`."""
    parent = _current_span.get()
    if parent is None:
        return

    epoch = time.time() - time.perf_counter()
    child = parent.start_child(name, "internal", {}, _nanoseconds(epoch + start))
    child.end(_nanoseconds(epoch + end))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def current_span() -> Span | None:
    """The current span; None if the request is not recorded."""
    return _current_span.get()


def propagation_headers() -> dict[str, str]:
    """The headers that propagate the current span's context to another service."""
    context = current_context.get()
    return context.headers() if context else {}
