"""Which trace a request belongs to, and the spans that it leaves there.

Knows W3C trace context and what a span is, nothing of how spans are sent: that is
`service.observability.otlp`, which is loaded only where there is an endpoint. Where nothing is
recorded, a span costs one look at a context variable. Invariant: what a client calls its trace is
believed only if it is a trace's name, letter by letter; and a span says how many and how long,
never what.
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
Attributes = Mapping[str, str | int | float | bool]
Facts = Mapping[str, str | int | float | None]
Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1
_MAX_STATE = 512
_MAX_MEMBERS = 32
_KEY = rb"[a-z0-9][a-z0-9_*/-]{0,240}(?:@[a-z][a-z0-9_*/-]{0,13})?"
_VALUE = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(b"(" + _KEY + b")=" + _VALUE)
_OUR_FAULT = 500
_UNRECORDED = ("/health", "/metrics", "/info")
"""Paths that leave no spans: machines ask them every second."""
_FACTS = {
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
"""What spans call the facts of a request's log line; the others they leave out. `gen_ai.rerank.*`
are proposed names."""
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace: the trace's id (32 hex digits), a span's (16), whether it is recorded,
    and others' notes on it."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    def headers(self) -> dict[str, str]:
        """What tells whoever is called next."""
        parent = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"}
        return parent | ({"tracestate": self.state} if self.state else {})


def read_context(headers: Headers) -> TraceContext | None:
    """What the headers `traceparent` and `tracestate` say; None where that is no place in a trace,
    or several."""
    parents = [value for name, value in headers if name == b"traceparent"]
    found = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if not found or not int(found[1], 16) or not int(found[2], 16):
        return None
    states = [value for name, value in headers if name == b"tracestate"]
    return TraceContext(
        found[1].decode(), found[2].decode(), bool(int(found[3], 16) & _SAMPLED), _state(states)
    )


def _state(offered: Sequence[bytes]) -> str:
    """A `tracestate`, if it is a well-formed one of at most 512 characters and 32 members; else
    none."""
    whole = b",".join(offered)
    if len(whole) > _MAX_STATE:
        return ""
    members = [member for each in whole.split(b",") if (member := each.strip(b" \t"))]
    keys = {found[1] for member in members if (found := _MEMBER.fullmatch(member))}
    return b",".join(members).decode() if len(keys) == len(members) <= _MAX_MEMBERS else ""


class Span(Protocol):
    """Something that takes time, on the record."""

    @property
    def context(self) -> TraceContext: ...

    def child(
        self, name: str, kind: Kind, attributes: Attributes, begun: int | None = None
    ) -> Span:
        """A span within this one, begun now, or at a time in nanoseconds since 1970."""
        ...

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Attributes) -> None: ...

    def link(self, context: TraceContext) -> None:
        """Name another span that this one has to do with."""
        ...

    def fail(self, code: str) -> None:
        """It did not do what it was for."""
        ...

    def end(self, ended: int | None = None) -> None:
        """It is over, now or since a time in nanoseconds since 1970."""
        ...


class Tracer(Protocol):
    """Decides which requests are recorded."""

    def begin(
        self, came_from: TraceContext | None, *, trusted: bool
    ) -> tuple[TraceContext, Span | None]:
        """A request's place in a trace, and its span if it is recorded.

        Whether it is, is for whoever it came from to say, if that is `trusted`; else it begins a
        trace of its own.
        """
        ...


current: ContextVar[TraceContext | None] = ContextVar("trace", default=None)
"""The place in a trace of what is being done: for logs, and for calls to a worker."""

_span: ContextVar[Span | None] = ContextVar("span", default=None)
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """From now on have `tracer` begin this process's spans; None: it records nothing."""
    global _tracer  # noqa: PLW0603  # one a process, as its log and its metrics
    _tracer = tracer


@contextmanager
def serving(path: str, headers: Headers, *, trusted: bool) -> Iterator[None]:
    """Around the serving of a request for this path with these headers; its span, if it has one, is
    `active()` meanwhile.

    Whether it is recorded is for whoever sent it to say, if that is `trusted`.
    """
    context, span = read_context(headers), None
    if _tracer is not None and not path.startswith(_UNRECORDED):
        context, span = _tracer.begin(context, trusted=trusted)
    tokens = current.set(context), _span.set(span)
    try:
        yield
    finally:
        current.reset(tokens[0])
        _span.reset(tokens[1])
        if span is not None:
            span.end()


def answered(method: str, route: str, status: int, facts: Facts) -> None:
    """Say of the request's span what it was for, and what came of it. `route` is one of ours, not
    what was asked for."""
    span = _span.get()
    if span is None:
        return
    method = method if method in _METHODS else "_OTHER"
    span.rename(f"{'HTTP' if method == '_OTHER' else method} {route}")
    told: dict[str, str | int | float | bool] = {"http.request.method": method, "http.route": route}
    told |= {"http.response.status_code": status} | (
        {"gen_ai.operation.name": "rerank"} if "documents" in facts else {}
    )
    told |= {
        attribute: fact
        for name, attribute in _FACTS.items()
        if (fact := facts.get(name)) is not None
    }
    span.set(told)
    if status >= _OUR_FAULT:
        span.fail(str(facts.get("code") or status))


@contextmanager
def span(
    name: str, kind: Kind = "internal", attributes: Attributes | None = None
) -> Iterator[Span | None]:
    """A span within the current one, if that is recorded; whatever is raised, it has failed with
    its code or its class's name."""
    within = _span.get()
    if within is None:
        yield None
        return
    own = within.child(name, kind, attributes or {})
    tokens = current.set(own.context), _span.set(own)
    try:
        yield own
    except BaseException as failure:
        own.fail(getattr(failure, "code", type(failure).__name__))
        raise
    finally:
        current.reset(tokens[0])
        _span.reset(tokens[1])
        own.end()


def record(name: str, begun: float, ended: float) -> None:
    """Leave a span within the current one of what is over; the times are of `time.perf_counter`."""
    within = _span.get()
    if within is None:
        return
    since_1970 = time.time() - time.perf_counter()
    within.child(name, "internal", {}, _nanoseconds(since_1970 + begun)).end(
        _nanoseconds(since_1970 + ended)
    )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def active() -> Span | None:
    """The current span, if it is recorded."""
    return _span.get()


def onward() -> dict[str, str]:
    """The headers of a call that is made within the current span."""
    context = current.get()
    return context.headers() if context else {}
