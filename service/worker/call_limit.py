"""The calls that a worker scores at once: their number, its limit, and the time of each.

Does not depend on engines or on HTTP. Invariant: a call counts from its acceptance until its
context ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded
from service.observability.engine_metrics import ENGINE_CALL_LIMIT, ENGINE_CALLS
from service.observability.metrics import SHED
from service.observability.request_context import add_stage_seconds
from service.observability.tracing import record_span


class CallTimer:
    """The time of one call: until the engine begins with it, and from then on."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        """Seconds by stage, once the call has ended."""
        self._accepted = time.perf_counter()
        self._begun: float | None = None

    def begin(self) -> None:
        """Record that the engine has begun with the call; only the first time counts. May be called
        from any thread."""
        if self._begun is None:
            self._begun = time.perf_counter()

    def end(self) -> None:
        """Record the end of the call, in `timings`, the request's stages and its trace."""
        ended = time.perf_counter()
        begun = ended if self._begun is None else self._begun
        self.timings = {"queue": begun - self._accepted, "engine": ended - begun}

        for stage, seconds in self.timings.items():
            add_stage_seconds(stage, seconds)
        record_span("queue", self._accepted, begun)
        record_span("engine", begun, ended)


class CallLimit:
    """Admits at most `limit` calls at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls = 0
        ENGINE_CALL_LIMIT.set(limit)

    @contextmanager
    def admitted(self) -> Iterator[CallTimer]:
        """One call, for as long as the context lasts; raises `Overloaded` beyond the limit."""
        if self._calls >= self._limit:
            SHED.labels("worker_full").inc()
            raise Overloaded

        timer = CallTimer()
        self._add(1)
        try:
            yield timer
        finally:
            self._add(-1)
            timer.end()

    def _add(self, calls: int) -> None:
        self._calls += calls
        ENGINE_CALLS.set(self._calls)
