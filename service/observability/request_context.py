"""The context of the request being handled: its id, the time of its stages, and the fields of its
log line.

Does not depend on HTTP or on any model. Invariant: the time of a stage is measured once, by the
process that does the work; log fields are counts, digests and names of ours, never what a user
sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from service.observability.metrics import STAGE_SECONDS
from service.observability.tracing import current_context, span

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request being handled, for log lines and for calls to a worker."""

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_ID = 128

LogValue = str | int | float | None


@dataclass(slots=True)
class RequestContext:
    """One request: its start, seconds by stage here and on workers, and the fields of its log
    line."""

    started: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    worker_stages: dict[str, float] = field(default_factory=dict)
    log_fields: dict[str, LogValue] = field(default_factory=dict)

    def seconds(self) -> float:
        """Seconds since the request started."""
        return time.perf_counter() - self.started

    def timings(self) -> dict[str, float]:
        """Seconds by stage, here and on workers; concurrent calls to workers are added up."""
        return self.stages | self.worker_stages


_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def accept_request_id(offered: str | None) -> str:
    """The client's own id if it is at most 128 of `[A-Za-z0-9._-]`, else a new one."""
    if offered and len(offered) <= _MAX_ID and _ID_CHARACTERS.issuperset(offered):
        return offered
    return f"rr-{secrets.token_hex(12)}"


def trace_id() -> str | None:
    """The id of the trace that the request belongs to, if any."""
    context = current_context.get()
    return context.trace_id if context else None


def exemplar() -> dict[str, str] | None:
    """The Prometheus exemplar for the current trace, if it is sampled."""
    context = current_context.get()
    return {"trace_id": context.trace_id} if context and context.sampled else None


@contextmanager
def timed_request(identity: str) -> Iterator[RequestContext]:
    """The context of a request with this id, the current one inside the `with` block."""
    context = RequestContext()
    id_token, context_token = request_id.set(identity), _context.set(context)
    try:
        yield context
    finally:
        request_id.reset(id_token)
        _context.reset(context_token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time one stage of the request; a stage that is entered several times adds up."""
    start = time.perf_counter()
    try:
        with span(name):
            yield
    finally:
        add_stage_seconds(name, time.perf_counter() - start)


def add_stage_seconds(name: str, seconds: float) -> None:
    """Add time that was measured elsewhere to a stage."""
    context = _context.get()
    if context is not None:
        context.stages[name] = context.stages.get(name, 0.0) + seconds


def add_worker_seconds(name: str, seconds: float) -> None:
    """Add time that a worker spent and reported to a stage.

    It is shown in the log line and in `Server-Timing`. The worker observes it in its own metrics.
    """
    context = _context.get()
    if context is not None:
        context.worker_stages[name] = context.worker_stages.get(name, 0.0) + seconds


def add_log_fields(**fields: LogValue) -> None:
    """Add fields to the request's log line."""
    context = _context.get()
    if context is not None:
        context.log_fields.update(fields)


def observe_stages(context: RequestContext) -> None:
    """Observe the stages of a finished request in the metrics."""
    for name, seconds in context.stages.items():
        STAGE_SECONDS.labels(name).observe(seconds)


def server_timing(context: RequestContext) -> str:
    """The value of a `Server-Timing` header: milliseconds by stage, and in total until now."""
    timings = context.timings() | {"total": context.seconds()}
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings.items())
