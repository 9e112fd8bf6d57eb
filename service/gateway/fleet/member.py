"""One worker as the gateway sees it: what it serves, how loaded it is, and whether it is worth
asking.

Knows one address, nothing of other workers or of routing. A worker is looked at again and again.
One that says it is not ready, or cannot be reached, is given nothing new; one that gives no sign of
life several times in a row hangs, and what waits for it is given up; one whose calls fail in a row
is left out by its breaker. Invariant: a call ends by its deadline, or as soon as its worker is
known to hang.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import httpx

from service.errors import DeadlineExceeded, NoWorker, RerankError, WorkerFailed
from service.gateway.circuit_breaker import Breaker
from service.gateway.fleet.client import MAX_MARGIN_SECONDS, REPLY_MARGIN, get_served, post_score
from service.observability.logs import log
from service.observability.metrics import WORKER_CALL_SECONDS, WORKER_CALLS
from service.wire import ScoreCall, ScoreReply, WorkerInfo

FAILURES = 3
"""Calls in a row that fail before a worker is left out."""
OPEN_SECONDS = 2.0
"""How long it is left out before one call tries it again."""
FAIR_SECONDS = MAX_MARGIN_SECONDS / REPLY_MARGIN
"""A worker that lets a call of so much time run out has failed: a partial reply was due. With less,
it may be the client."""
RETRY_LOOK_SECONDS = 0.2
"""How soon a worker that did not answer well is looked at again."""

State = Literal["ready", "unresponsive", "circuit_open", "unready"]
STATES: tuple[State, ...] = ("ready", "unresponsive", "circuit_open", "unready")


@dataclass(frozen=True, slots=True)
class HealthCheckPolicy:
    """How often a ready worker is looked at, how long it has to answer, and after how many missed
    answers in a row it hangs."""

    look_seconds: float = 1.0
    answer_seconds: float = 2.0
    misses: int = 3


class PoolMember:
    """One worker; `load` is the cost of what it has been given and has not answered. `watch` it for
    as long as it is used."""

    def __init__(
        self, client: httpx.AsyncClient, patience: HealthCheckPolicy | None = None
    ) -> None:
        self.name = str(client.base_url)
        self.serves: tuple[WorkerInfo, ...] = ()
        self.load = 0
        self._client = client
        self._patience = patience or HealthCheckPolicy()
        self._breaker = Breaker(failures=FAILURES, seconds=OPEN_SECONDS)
        self._away = False
        self._missed = 0
        self._calls: set[asyncio.Timeout] = set()
        self._leaving = False
        self._in_doubt = asyncio.Event()

    def model(self, name: str) -> WorkerInfo | None:
        """What it serves under a name."""
        return next((info for info in self.serves if info.model == name), None)

    def admits(self) -> bool:
        """Whether its breaker would let a call through."""
        return self._breaker.would_admit()

    def unresponsive(self) -> bool:
        """Whether it did not answer when it was looked at last."""
        return self._missed > 0

    def state(self) -> State:
        """What is the matter with it, the worst first."""
        if not self.serves:
            return "unready"
        return (
            "circuit_open"
            if self._breaker.state != "closed"
            else "unresponsive"
            if self.unresponsive()
            else "ready"
        )

    async def call(self, call: ScoreCall, until: float) -> ScoreReply:
        """Its reply before `until` (event loop time).

        Raises what it said, `InvalidRequest` where it refused the call itself, `DeadlineExceeded`,
        `NoWorker` where it cannot be reached or hangs, and `WorkerFailed` where it went away in the
        midst of it, or its reply is of no use. An open breaker stops nobody here: who asks has
        nobody better to ask.
        """
        breaker, start = self._breaker, asyncio.get_running_loop().time()
        admitted = breaker.enter()
        succeeded, outcome = None, "cancelled"
        try:
            reply = await self._reply(call, until)
            succeeded, outcome = True, "ok"
            WORKER_CALL_SECONDS.observe(asyncio.get_running_loop().time() - start)
        except RerankError as error:
            late = isinstance(error, DeadlineExceeded) and until - start >= FAIR_SECONDS
            succeeded, outcome = (
                False if late or isinstance(error, WorkerFailed | NoWorker) else None,
                error.code,
            )
            raise
        finally:
            WORKER_CALLS.labels(outcome).inc()
            if admitted or succeeded:
                self._record_call(breaker, succeeded)
        if (served := self.model(call.model)) and reply.digest != served.digest:
            await self.probe()
        return reply

    async def probe(self) -> None:
        """Ask it what it serves."""
        try:
            async with asyncio.timeout(self._patience.answer_seconds):
                serves = await get_served(self._client)
        except (TimeoutError, httpx.TimeoutException):
            self._miss()
        except httpx.HTTPError:
            self._update_models(())
        else:
            self._update_models(serves)

    async def monitor(self) -> None:
        """Keep an eye on it until it has left and its last call has ended; then close its
        client."""
        try:
            while self._calls or not self._leaving:
                try:
                    await self.probe()
                # a watch that ended would leave the worker as it was last seen, for good
                except Exception as failure:
                    log(
                        "a look at a worker failed",
                        logging.ERROR,
                        failure=failure,
                        worker=self.name,
                    )
                    self._update_models(())
                await self._pause()
        finally:
            await self._client.aclose()

    def retire(self) -> None:
        """It is gone from where it was found: nothing new for it, and its calls may end."""
        self._leaving = True
        self._update_models(())
        self._in_doubt.set()

    async def _reply(self, call: ScoreCall, until: float) -> ScoreReply:
        scope = asyncio.timeout_at(until)
        try:
            async with scope:
                self._calls.add(scope)
                return await post_score(self._client, call, until)
        except TimeoutError:
            hangs = (scope.when() or until) < until
            raise NoWorker if hangs else DeadlineExceeded from None
        except httpx.HTTPError as error:
            log("worker unreachable", logging.WARNING, worker=self.name, kind=type(error).__name__)
            self._mark_suspect()
            raise (
                NoWorker
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                else WorkerFailed
            ) from None
        except NoWorker:
            self._mark_suspect()
            raise
        finally:
            self._calls.discard(scope)

    def _mark_suspect(self) -> None:
        """Nothing new for it before it has said again that it is ready, which it is asked at
        once."""
        self._serve(())
        self._in_doubt.set()

    def _miss(self) -> None:
        """It was silent. Once, it may be busy; several times in a row, it hangs."""
        self._missed += 1
        if self._missed < self._patience.misses:
            return
        if self._missed == self._patience.misses and (self.serves or self._calls):
            log("worker hangs", logging.WARNING, worker=self.name, calls=len(self._calls))
        self._away = True
        self._serve(())
        for scope in self._calls:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())

    def _update_models(self, serves: tuple[WorkerInfo, ...]) -> None:
        """It, or the system for it, has said what it serves. If it was away, it is another by now:
        past failures say nothing."""
        if serves and self._away:
            self._breaker = Breaker(failures=FAILURES, seconds=OPEN_SECONDS)
        self._away = not serves
        self._missed = 0
        self._serve(() if self._leaving else serves)

    def _serve(self, serves: tuple[WorkerInfo, ...]) -> None:
        if serves != self.serves:
            served = ",".join(f"{info.model}@{info.digest}" for info in serves)
            log("worker changed", worker=self.name, serves=served or None)
        self.serves = serves

    def _record_call(self, breaker: Breaker, succeeded: bool | None) -> None:
        before = breaker.state
        breaker.leave(succeeded)
        if (before == "closed") != (breaker.state == "closed"):
            log("worker's breaker", logging.WARNING, worker=self.name, state=breaker.state)

    async def _pause(self) -> None:
        """Wait until it is time for another look, or there is reason for one."""
        settled = self.serves and not self.unresponsive()
        seconds = (
            self._patience.look_seconds
            if settled
            else min(self._patience.look_seconds, RETRY_LOOK_SECONDS)
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._in_doubt.wait()
        self._in_doubt.clear()
