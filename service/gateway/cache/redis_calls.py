"""Calls to Redis that no request waits for beyond a budget.

The module depends on one client and on coroutines that call it, on no key and no value. A call is
never cancelled. Its caller stops waiting, the call ends by its socket's timeouts, and a late reply
is read and dropped: so replies cannot be mixed up, and a connection that takes longer than the
budget to open serves the next call. Invariant: an attempt raises nothing; every failure is counted
by its kind, and the number of attempts and of calls under way is bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from redis.exceptions import MaxConnectionsError

from service.gateway.cache.redis_client import (
    SOCKET_TIMEOUT_SECONDS,
    Client,
    failure_kind,
    first_failure,
)
from service.gateway.circuit_breaker import Breaker
from service.observability.logs import log
from service.observability.metric_types import follow
from service.observability.metrics import (
    CACHE_CIRCUIT,
    CACHE_FAILURES,
    CACHE_SECONDS,
    CACHE_SKIPPED,
)

BREAKER_FAILURES = 5
"""Failed calls in a row that open a circuit breaker; each operation has one."""
BREAKER_SECONDS = 1.0

Operation = Literal["get", "set", "image_get", "image_set", "feedback_get", "feedback_set"]
Reply = TypeVar("Reply")
_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


class RedisCalls:
    """Calls to Redis by operation, at most `connections` at a time. Call `close` at the end.

    `max_pending` is the number of attempts of each operation that may be under way or waiting for a
    connection. `grace_seconds` is how much longer a process that is late itself waits for a reply.
    """

    def __init__(
        self,
        client: Client,
        max_pending: Mapping[Operation, int],
        *,
        connections: int,
        grace_seconds: float,
        breaker_seconds: float = BREAKER_SECONDS,
    ) -> None:
        self.client = client
        self._max_pending = max_pending
        self._grace = grace_seconds
        self._connections = asyncio.Semaphore(connections)
        self._attempts: dict[Operation, set[asyncio.Task[Any]]] = {}
        self._calls: set[asyncio.Task[Any]] = set()

        self._breakers: dict[Operation, Breaker] = {}
        for operation in max_pending:
            self._attempts[operation] = set()
            breaker = Breaker(failures=BREAKER_FAILURES, seconds=breaker_seconds)
            self._breakers[operation] = breaker
            follow(CACHE_CIRCUIT.labels(operation), partial(_breaker_state, breaker))

    def pending(self, operation: Operation) -> int:
        """The number of attempts that have not ended."""
        return len(self._attempts[operation])

    def is_closed(self, operation: Operation) -> bool:
        """True if the circuit breaker lets every call through; otherwise the next one is a probe,
        whose outcome is for the requests after it."""
        return self._breakers[operation].state == "closed"

    async def close(self) -> None:
        """Wait for the calls under way, for a bounded time, and disconnect."""
        tasks = set(self._calls).union(*self._attempts.values())
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=2 * SOCKET_TIMEOUT_SECONDS)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        await self.client.aclose()

    def start(
        self, operation: Operation, call: Callable[[], Coroutine[Any, Any, Reply]], timeout: float
    ) -> asyncio.Task[Reply | None] | None:
        """Start an attempt, or return None where backlog or breaker forbid it.

        The task never raises. Its result is None after a failure, which has been counted.
        """
        if self.pending(operation) >= self._max_pending[operation]:
            CACHE_SKIPPED.labels(operation, "backlog").inc()
            return None
        if not self._breakers[operation].enter():
            CACHE_SKIPPED.labels(operation, "circuit_open").inc()
            return None

        attempt = asyncio.create_task(self._attempt(operation, call, timeout))
        self._attempts[operation].add(attempt)
        attempt.add_done_callback(self._attempts[operation].discard)
        return attempt

    def send(
        self, operation: Operation, commands: Sequence[tuple[Any, ...]], timeout: float
    ) -> asyncio.Task[list[object] | None] | None:
        """Start an attempt to send commands together, as `start` does; an error among their replies
        is a failure of all."""
        return self.start(operation, partial(self._pipelined, commands), timeout)

    async def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[object]:
        async with self.client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[object] = await pipe.execute(raise_on_error=False)
        failure = first_failure(replies)
        if failure:
            raise failure
        return replies

    async def _attempt(
        self, operation: Operation, call: Callable[[], Coroutine[Any, Any, Reply]], timeout: float
    ) -> Reply | None:
        """Make a call when a connection is free; `timeout` covers the wait for both."""
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + timeout
        failure: str | None = None
        try:
            await self._take_connection(deadline)
            reply = await self._reply(self._call(call), deadline)
        except Exception as error:
            failure = failure_kind(error)

        CACHE_SECONDS.labels(operation).observe(clock() - started)
        self._record(operation, failure)
        return None if failure else reply

    async def _take_connection(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._connections.acquire()
        except TimeoutError:
            raise MaxConnectionsError from None

    def _call(self, call: Callable[[], Coroutine[Any, Any, Reply]]) -> asyncio.Task[Reply]:
        """Make a call that keeps its connection until it ends, even when its caller has stopped
        waiting."""
        task = asyncio.create_task(call())
        self._calls.add(task)
        task.add_done_callback(self._release_connection)
        return task

    def _release_connection(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        self._connections.release()
        if not call.cancelled():
            call.exception()  # mark it as retrieved: its caller may have stopped waiting

    async def _reply(self, call: asyncio.Task[Reply], deadline: float) -> Reply:
        """The reply, if it arrives before `deadline` (event loop time).

        A process that comes back to this task late has used up the time itself, so the reply gets
        that long again, within the budget.
        """
        clock = asyncio.get_running_loop().time
        await asyncio.wait({call}, timeout=deadline - clock())
        if not call.done():
            await asyncio.wait({call}, timeout=min(clock() - deadline, self._grace))
        if not call.done():
            raise TimeoutError
        return call.result()

    def _record(self, operation: Operation, failure: str | None) -> None:
        """Count an attempt and report it to the breaker, to which a lack of connections is neither
        success nor failure."""
        breaker = self._breakers[operation]
        before = breaker.state
        breaker.leave(None if failure == "pool" else failure is None)

        if failure:
            CACHE_FAILURES.labels(operation, failure).inc()
        if before == "closed" and breaker.state == "open":
            log(
                "Redis is left alone for a while",
                logging.WARNING,
                operation=operation,
                kind=failure,
            )
        elif before != "closed" and breaker.state == "closed":
            log("Redis answers again", operation=operation)


def _breaker_state(breaker: Breaker) -> float:
    return _BREAKER_STATES[breaker.state]
