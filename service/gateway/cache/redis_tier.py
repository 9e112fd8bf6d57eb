"""The cache's tier in Redis, which gateways share and which no request waits for beyond a budget.

The module depends on keys, encoded values and one client, on no query and no request. A call to
Redis is never cancelled. Its caller stops waiting, the call ends by its socket's timeouts, and a
late reply is read and dropped: so replies cannot be mixed up, and a connection that takes longer
than the budget to open serves the next call. Invariant: a value is used only if it was encoded for
its key; every failure is a miss, counted by its kind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from redis.exceptions import MaxConnectionsError

from service.gateway.cache.encoding import ScoreCodec
from service.gateway.cache.keys import TAG_BYTES
from service.gateway.cache.redis_client import (
    SOCKET_TIMEOUT_SECONDS,
    Client,
    failure_kind,
    first_failure,
)
from service.gateway.circuit_breaker import Breaker
from service.observability.logs import log
from service.observability.metrics import (
    CACHE_CIRCUIT,
    CACHE_FAILURES,
    CACHE_REJECTED,
    CACHE_SECONDS,
    CACHE_SKIPPED,
)
from service.wire import Scored

BREAKER_FAILURES = 5
"""Failed calls in a row that open a circuit breaker; reads and writes have one each."""
BREAKER_SECONDS = 1.0

Operation = Literal["get", "set"]
Reply = TypeVar("Reply")
_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


@dataclass(frozen=True, slots=True)
class RedisLimits:
    """Bounds on the work of a tier. What is beyond them is not done: a read is a miss, a write is
    dropped."""

    keys_per_read: int = 10_000
    pairs_per_write: int = 1_000
    """More pairs take several writes."""
    pending_reads: int = 1_024
    """Reads under way, or waiting for a connection."""
    pending_writes: int = 64


class RedisTier:
    """Scores in Redis, kept for `ttl_seconds`. Call `close` at the end.

    `budget_seconds` is how long a read is waited for; a write is never waited for. At most
    `connections` calls are under way at a time.
    """

    name = "redis"

    def __init__(
        self,
        client: Client,
        codec: ScoreCodec,
        *,
        prefix: str = "gmr:",
        ttl_seconds: int = 604_800,
        budget_seconds: float = 0.05,
        connections: int = 16,
        breaker_seconds: float = BREAKER_SECONDS,
        limits: RedisLimits | None = None,
    ) -> None:
        self._client = client
        self._codec = codec
        self._prefix = prefix.encode()
        self._ttl = ttl_seconds
        self._budget = budget_seconds
        self._limits = limits or RedisLimits()
        self._max_pending: dict[Operation, int] = {
            "get": self._limits.pending_reads,
            "set": self._limits.pending_writes,
        }
        self._connections = asyncio.Semaphore(connections)
        self._attempts: dict[Operation, set[asyncio.Task[Any]]] = {"get": set(), "set": set()}
        self._calls: set[asyncio.Task[Any]] = set()

        self._breakers: dict[Operation, Breaker] = {}
        for operation in self._attempts:
            breaker = Breaker(failures=BREAKER_FAILURES, seconds=breaker_seconds)
            self._breakers[operation] = breaker
            CACHE_CIRCUIT.labels(operation).set_function(partial(_breaker_state, breaker))

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        misses: list[Scored | None] = [None] * len(keys)
        requested = keys[: self._limits.keys_per_read]

        is_probe = self._breakers["get"].state != "closed"
        reading = self._start("get", partial(self._read, requested), self._budget)
        # no request waits for a probe, whose outcome is for the requests after it
        if reading is None or is_probe:
            return misses

        values = await asyncio.shield(reading)
        if values is None:
            return misses
        scores = [self._decoded(key, value) for key, value in zip(requested, values, strict=True)]
        return scores + misses[len(requested) :]

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Start to write, and return before anything is sent."""
        now = time.time()
        values: list[tuple[bytes, bytes]] = []
        for key, score in scores.items():
            values.append((self._redis_key(key), self._codec.encode(key, score, now)))

        size = self._limits.pairs_per_write
        for start in range(0, len(values), size):
            write = partial(self._write, values[start : start + size])
            self._start("set", write, 2 * SOCKET_TIMEOUT_SECONDS)

    def pending(self, operation: Operation) -> int:
        """The number of attempts that have not ended."""
        return len(self._attempts[operation])

    async def warm_up(self) -> None:
        """Open a first connection, so that no request waits for it; a failure is logged."""
        read = partial(self._read, [bytes(TAG_BYTES)])
        reading = self._start("get", read, 2 * SOCKET_TIMEOUT_SECONDS)
        if reading is not None and await asyncio.shield(reading) is None:
            log(
                "the score cache's Redis does not answer: scores are kept in memory only",
                logging.WARNING,
            )

    async def close(self) -> None:
        """Wait for the calls under way, for a bounded time, and disconnect."""
        tasks = {*self._attempts["get"], *self._attempts["set"], *self._calls}
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=2 * SOCKET_TIMEOUT_SECONDS)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        await self._client.aclose()

    def _start(
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
            await asyncio.wait({call}, timeout=min(clock() - deadline, self._budget))
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

    async def _read(self, keys: Sequence[bytes]) -> list[object]:
        values: object = await self._client.mget([self._redis_key(key) for key in keys])
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError("a reply of another shape")
        return values

    async def _write(self, values: Sequence[tuple[bytes, bytes]]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for key, value in values:
                pipe.execute_command("SET", key, value, "EX", self._ttl)
            failure = first_failure(await pipe.execute(raise_on_error=False))
        if failure:
            raise failure

    def _decoded(self, key: bytes, value: object) -> Scored | None:
        """The score in a value. A rejected value is overwritten when the pair is scored again."""
        if value is None:
            return None

        score = self._codec.decode(key, value)
        if isinstance(score, str):
            CACHE_REJECTED.labels(score).inc()
            return None
        return score

    def _redis_key(self, key: bytes) -> bytes:
        """The key's name in Redis, with the tag as its hash tag: a Cluster stores all keys of a
        scoring context in one slot, which one MGET can read."""
        return self._prefix + b"{" + key[:TAG_BYTES].hex().encode() + b"}" + key[TAG_BYTES:]


def _breaker_state(breaker: Breaker) -> float:
    return _BREAKER_STATES[breaker.state]
