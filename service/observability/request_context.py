"""What is known of the request being served: its id, how long its stages took, and what its log
line says.

Knows no HTTP and no models. Invariant: of a stage, time is measured where it is spent, once; what a
log line says is counts, names of ours and digests, never what a user sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from service.observability.metrics import STAGE_SECONDS
from service.observability.tracing import current, span

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request being served, for logs and for calls to a worker."""

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_ID = 128

Fact = str | int | float | None


@dataclass(slots=True)
class RequestContext:
    """One request: since when it is served, seconds by stage, spent here or `told` by a worker, and
    facts for its log line."""

    begun: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)

    def seconds(self) -> float:
        """How long it has been served by now."""
        return time.perf_counter() - self.begun

    def timings(self) -> dict[str, float]:
        """Seconds by stage, wherever they were spent; of a worker, calls made at once are added
        up."""
        return self.stages | self.told


_record: ContextVar[RequestContext | None] = ContextVar("record", default=None)


def accept_request_id(offered: str | None) -> str:
    """The client's own id if it is at most 128 of `[A-Za-z0-9._-]`, else a new one."""
    if offered and len(offered) <= _MAX_ID and _ID_CHARACTERS.issuperset(offered):
        return offered
    return f"rr-{secrets.token_hex(12)}"


def trace_id() -> str | None:
    """The id of the trace that the request belongs to, if there is one."""
    context = current.get()
    return context.trace_id if context else None


def exemplar() -> dict[str, str] | None:
    """What leads from a measurement to the trace that it was part of, if that is recorded."""
    context = current.get()
    return {"trace_id": context.trace_id} if context and context.sampled else None


@contextmanager
def timed_request(identity: str) -> Iterator[RequestContext]:
    """Keep a record of one request while the context lasts."""
    record = RequestContext()
    id_token, record_token = request_id.set(identity), _record.set(record)
    try:
        yield record
    finally:
        request_id.reset(id_token)
        _record.reset(record_token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time one stage of a request; entered several times, its times are added up."""
    start = time.perf_counter()
    try:
        with span(name):
            yield
    finally:
        add_stage_seconds(name, time.perf_counter() - start)


def add_stage_seconds(name: str, seconds: float) -> None:
    """Add to a stage that was timed by other means."""
    record = _record.get()
    if record is not None:
        record.stages[name] = record.stages.get(name, 0.0) + seconds


def add_worker_seconds(name: str, seconds: float) -> None:
    """Add to a stage that a worker has spent, and measured: it shows in what is said of this
    request, and in no metric here."""
    record = _record.get()
    if record is not None:
        record.told[name] = record.told.get(name, 0.0) + seconds


def add_log_fields(**facts: Fact) -> None:
    """Have the request's log line say something."""
    record = _record.get()
    if record is not None:
        record.facts.update(facts)


def observe_stages(record: RequestContext) -> None:
    """Put a finished request's stages into the metrics."""
    for name, seconds in record.stages.items():
        STAGE_SECONDS.labels(name).observe(seconds)


def server_timing(record: RequestContext) -> str:
    """A `Server-Timing` header's value, in milliseconds: each stage, and all until now."""
    timings = record.timings() | {"total": record.seconds()}
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings.items())
