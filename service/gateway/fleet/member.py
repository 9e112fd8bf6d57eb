"""One worker of the pool: the models it serves, its load, and its health.

Depends on one address, not on other workers or on routing. A worker is probed again and again. One
that is not ready or cannot be reached gets no new calls; one that misses several probes in a row
counts as hanging, and its calls are given up; one whose calls fail in a row is excluded by its
circuit breaker. Invariant: a call ends by its deadline, or as soon as its worker counts as hanging.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import httpx

from service.errors import DeadlineExceeded, NoWorker, RerankError, WorkerFailed
from service.gateway.circuit_breaker import Breaker
from service.gateway.fleet.client import MAX_MARGIN_SECONDS, REPLY_MARGIN, get_served, post_score
from service.gateway.fleet.sent_pictures import SentPictures
from service.observability.logs import log
from service.observability.metrics import WORKER_CALL_SECONDS, WORKER_CALLS
from service.wire import ScoreCall, ScoreReply, WorkerInfo

RETRY_PROBE_SECONDS = 0.2
"""Time until the next probe of a worker that is not ready or missed the last one."""

State = Literal["ready", "unresponsive", "circuit_open", "unready"]
STATES: tuple[State, ...] = ("ready", "unresponsive", "circuit_open", "unready")


@dataclass(frozen=True, slots=True)
class HealthCheckPolicy:
    """The time between two probes of a ready worker, the time that it has to answer one, and the
    number of misses in a row after which it counts as hanging."""

    probe_seconds: float = 1.0
    timeout_seconds: float = 2.0
    max_misses: int = 3


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """The bounds of a worker's circuit breaker: it opens after `failures` in a row, and stays open
    for `open_seconds`.

    A call that reaches its deadline is a failure if it had `blame_seconds` or more: the worker
    should have sent a partial reply then. With less, the client may be the reason.
    """

    failures: int = 3
    open_seconds: float = 2.0
    blame_seconds: float = MAX_MARGIN_SECONDS / REPLY_MARGIN


class PoolMember:
    """One worker. `load` is the cost of the calls that it was given and has not answered. `models`
    is what it serves, its default first; empty while it gets no new calls. `pictures` are those
    whose pixels it keeps. `on_change` is called after `models` have changed.

    `monitor()` must run for as long as the worker is used.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        health_checks: HealthCheckPolicy,
        breaker: BreakerPolicy,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = str(client.base_url)
        self.models: tuple[WorkerInfo, ...] = ()
        self.load = 0
        self.pictures = SentPictures()
        self._client = client
        self._health_checks = health_checks
        self._breaker_policy = breaker
        self._on_change = on_change
        self._breaker = self._new_breaker()
        self._unreachable = False
        self._misses = 0
        self._calls: set[asyncio.Timeout] = set()
        self._retired = False
        self._suspect = asyncio.Event()

    @property
    def calls(self) -> int:
        """The number of calls that are under way."""
        return len(self._calls)

    def model(self, name: str) -> WorkerInfo | None:
        """The model of a name, if the worker serves it."""
        return next((model for model in self.models if model.model == name), None)

    def admits(self) -> bool:
        """True if the circuit breaker would admit a call."""
        return self._breaker.would_admit()

    def unresponsive(self) -> bool:
        """True if the worker missed its last probe."""
        return self._misses > 0

    def state(self) -> State:
        """The worst that is true of the worker."""
        if not self.models:
            return "unready"
        if self._breaker.state != "closed":
            return "circuit_open"
        return "unresponsive" if self.unresponsive() else "ready"

    async def call(self, call: ScoreCall, deadline: float) -> ScoreReply:
        """The worker's reply before `deadline` (event loop time).

        The call is made even while the breaker is open: it is for callers to prefer other workers.
        Raises the worker's error; `InvalidRequest` where it refuses the call itself;
        `DeadlineExceeded`; `NoWorker` where it cannot be reached or hangs; and `WorkerFailed`
        where the connection breaks, or the reply is invalid.
        """
        breaker = self._breaker
        admitted = breaker.enter()
        start = asyncio.get_running_loop().time()
        succeeded: bool | None = None
        outcome = "cancelled"
        try:
            reply = await self._reply(call, deadline)
            succeeded, outcome = True, "ok"
            WORKER_CALL_SECONDS.observe(asyncio.get_running_loop().time() - start)
        except RerankError as error:
            outcome = error.code
            if self._is_failure(error, deadline - start):
                succeeded = False
            raise
        finally:
            WORKER_CALLS.labels(outcome).inc()
            if admitted or succeeded:
                self._record_call(breaker, succeeded)

        served = self.model(call.model)
        if served is not None and reply.digest != served.digest:
            await self.probe()
        return reply

    async def probe(self) -> None:
        """Request the served models, and update them."""
        try:
            async with asyncio.timeout(self._health_checks.timeout_seconds):
                models = await get_served(self._client)
        except (TimeoutError, httpx.TimeoutException):
            self._count_miss()
        except httpx.HTTPError:
            self._update_models(())
        else:
            self._update_models(models)

    async def monitor(self) -> None:
        """Probe the worker until it is retired and its last call has ended; then close its
        client."""
        try:
            while self._calls or not self._retired:
                await self._probe_safely()
                await self._wait_for_next_probe()
        finally:
            await self._client.aclose()

    def retire(self) -> None:
        """Give the worker no new calls, because its address is gone; calls under way may end."""
        self._retired = True
        self._update_models(())
        self._suspect.set()

    async def _probe_safely(self) -> None:
        """Probe once; an unexpected exception makes the worker unready. If it ended the monitor,
        the worker would keep its last state for ever."""
        try:
            await self.probe()
        except Exception as failure:
            log("a probe of a worker failed", logging.ERROR, failure=failure, worker=self.name)
            self._update_models(())

    async def _wait_for_next_probe(self) -> None:
        """Wait until the next probe is due, or a call made the worker suspect."""
        seconds = self._health_checks.probe_seconds
        if not self.models or self.unresponsive():
            seconds = min(seconds, RETRY_PROBE_SECONDS)

        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._suspect.wait()
        self._suspect.clear()

    async def _reply(self, call: ScoreCall, deadline: float) -> ScoreReply:
        """The reply to a call; a worker that cannot be reached becomes suspect."""
        scope = asyncio.timeout_at(deadline)
        try:
            async with scope:
                self._calls.add(scope)
                return await post_score(self._client, call, deadline)
        except TimeoutError:
            # a worker that counts as hanging has its calls' timeouts moved to that moment
            hangs = (scope.when() or deadline) < deadline
            raise NoWorker if hangs else DeadlineExceeded from None
        except httpx.HTTPError as error:
            log("worker unreachable", logging.WARNING, worker=self.name, kind=type(error).__name__)
            self._mark_suspect()
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise NoWorker if never_sent else WorkerFailed from None
        except NoWorker:
            self._mark_suspect()
            raise
        finally:
            self._calls.discard(scope)

    def _is_failure(self, error: RerankError, seconds: float) -> bool:
        """True if an error of a call that had so many seconds counts against the worker."""
        if isinstance(error, DeadlineExceeded):
            return seconds >= self._breaker_policy.blame_seconds
        return isinstance(error, WorkerFailed | NoWorker)

    def _mark_suspect(self) -> None:
        """Give the worker no new calls until the next probe, which is made at once."""
        self._set_models(())
        self._suspect.set()

    def _count_miss(self) -> None:
        """Count a probe without an answer. After one, the worker may be busy; after several in a
        row it counts as hanging, and its calls end."""
        self._misses += 1
        if self._misses < self._health_checks.max_misses:
            return

        if self._misses == self._health_checks.max_misses and (self.models or self._calls):
            log("worker hangs", logging.WARNING, worker=self.name, calls=len(self._calls))
        self._unreachable = True
        self._set_models(())
        for scope in self._calls:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())

    def _update_models(self, models: tuple[WorkerInfo, ...]) -> None:
        """Record the result of a probe. A worker that was unreachable may have restarted, so its
        breaker starts afresh."""
        if models and self._unreachable:
            self._breaker = self._new_breaker()
        self._unreachable = not models
        self._misses = 0
        self._set_models(() if self._retired else models)

    def _set_models(self, models: tuple[WorkerInfo, ...]) -> None:
        changed = models != self.models
        if changed:
            served = ",".join(f"{model.model}@{model.digest}" for model in models)
            log("worker changed", worker=self.name, serves=served or None)
        self.models = models
        if models:
            self.pictures.follow(models)
        if changed:
            self._on_change()

    def _record_call(self, breaker: Breaker, succeeded: bool | None) -> None:
        """Report the end of a call to the breaker that admitted it, and log where that opens or
        closes it."""
        before = breaker.state
        breaker.leave(succeeded)
        if (before == "closed") != (breaker.state == "closed"):
            log("worker's breaker", logging.WARNING, worker=self.name, state=breaker.state)

    def _new_breaker(self) -> Breaker:
        policy = self._breaker_policy
        return Breaker(failures=policy.failures, seconds=policy.open_seconds)
