"""Requests that wait for a worker while none is ready, as where workers are scaled to zero.

Depends on sizes, scopes (tenants) and the readiness of the workers, not on their addresses.
Invariant: at most a fixed number of requests and of bytes wait, one scope never takes every place,
and each request leaves its place however its wait ends.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from service.errors import NoWorker
from service.gateway.admission.wait_bounds import WaitBounds
from service.observability.metrics import (
    SHED,
    WAIT_LIMIT_SECONDS,
    WAITING_FOR_WORKER,
    WAITING_FOR_WORKER_LIMIT,
)
from service.observability.request_context import stage

SCOPE_SHARE = 0.75
"""The share of the places and of the bytes that one scope can take."""


class WorkerWait:
    """Lets requests wait for a worker within bounds; where these say that none waits, requests
    without a worker are refused at once.

    `is_ready` tells whether a worker serves a model, and `until_ready` returns once one does.
    """

    def __init__(
        self,
        bounds: WaitBounds,
        is_ready: Callable[[], bool],
        until_ready: Callable[[], Awaitable[None]],
    ) -> None:
        self._seconds = bounds.seconds
        self._max_requests = bounds.max_requests
        self._max_bytes = bounds.max_bytes
        self._is_ready = is_ready
        self._until_ready = until_ready
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        WAIT_LIMIT_SECONDS.set(bounds.seconds)
        WAITING_FOR_WORKER_LIMIT.set(bounds.max_requests if bounds.seconds else 0)

    def has_worker(self) -> bool:
        """True if a worker is ready, so that no request waits for one."""
        return self._is_ready()

    def accepts(self) -> bool:
        """True if requests are accepted: a worker is ready, or they may wait for one."""
        return self._seconds > 0 or self._is_ready()

    def readiness(self) -> str:
        """A sentence about requests that are accepted while no worker is ready; else nothing."""
        return "" if self._is_ready() else self._sentence()

    def expect_place(self, scope: str, size: int = 0) -> None:
        """Raise `NoWorker` where no worker is ready, and a request of a scope with a body of `size`
        bytes cannot wait for one."""
        if self._is_ready():
            return
        if not self._seconds:
            raise self._refused("no_worker")
        if not self._has_place(scope, size):
            raise self._refused("worker_wait_full")

    async def wait(self, scope: str, size: int, deadline: float) -> bool:
        """Wait until a worker is ready; returns whether it took a wait.

        Raises `NoWorker` where there is no place, and at `deadline` (event loop time) or after
        `seconds`, whichever comes first.
        """
        self.expect_place(scope, size)
        if self._is_ready():
            return False

        until = min(deadline, asyncio.get_running_loop().time() + self._seconds)
        with stage("admit"), self._place(scope, size):
            try:
                async with asyncio.timeout_at(until):
                    await self._until_ready()
            except TimeoutError:
                raise self._refused("no_worker") from None
        return True

    def _has_place(self, scope: str, size: int) -> bool:
        """True if one more request fits; a scope without API keys has all places."""
        share = SCOPE_SHARE if scope else 1.0
        return (
            self._requests.total() < self._max_requests
            and self._requests[scope] < max(1, int(self._max_requests * share))
            and self._bytes.total() + size <= self._max_bytes
            and self._bytes[scope] + size <= self._max_bytes * share
        )

    @contextmanager
    def _place(self, scope: str, size: int) -> Iterator[None]:
        self._change(scope, 1, size)
        try:
            yield
        finally:
            self._change(scope, -1, -size)

    def _change(self, scope: str, requests: int, size: int) -> None:
        self._requests[scope] += requests
        self._bytes[scope] += size
        if not self._requests[scope]:
            del self._requests[scope], self._bytes[scope]
        WAITING_FOR_WORKER.set(self._requests.total())

    def _refused(self, reason: str) -> NoWorker:
        SHED.labels(reason).inc()
        return NoWorker(self._sentence() if self._seconds else None)

    def _sentence(self) -> str:
        return f"No worker is ready; a request waits up to {self._seconds:g} seconds for one."
