"""The cache's tier in Redis: shared by gateways, and never waited for longer than its budget.

Knows keys, sealed values and one client, nothing of questions or requests. A call to Redis is never
cancelled: who asked stops waiting, the call itself ends by its own timeouts, and its late reply is
read and dropped, so that replies cannot get crossed and a connection that takes longer than the
budget to open is still there for the next one. Invariant: a value is believed only if it was sealed
for its key; whatever goes wrong is a miss, counted by its kind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from redis.exceptions import MaxConnectionsError

from service.gateway.cache.encoding import Seal
from service.gateway.cache.redis_client import GIVE_UP_SECONDS, Client, failure_kind, first_failure
from service.gateway.cache.score_cache import TAG_BYTES
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

FAILURES = 5
"""Calls that fail in a row before Redis is left alone for `REST_SECONDS`; reads and writes are
counted apart."""
REST_SECONDS = 1.0
MOST_KEYS = 10_000
"""Keys that one call asks for; those beyond are misses."""
PAIRS_A_WRITE = 1_000

Operation = Literal["get", "set"]
MOST_UNDER_WAY: dict[Operation, int] = {"get": 1_024, "set": 64}
"""Calls that may be under way or waiting for their turn; beyond that, reads are misses and writes
are dropped."""
Reply = TypeVar("Reply")
_STATES = {"closed": 0, "half_open": 1, "open": 2}


def _state_of(breaker: Breaker) -> float:
    return _STATES[breaker.state]


class RedisTier:
    """Scores in Redis. A read is waited for `budget_seconds` at most, a write not at all; call
    `close` in the end.

    `connections` calls are under way at a time, the others take turns; values are kept for
    `ttl_seconds`.
    """

    name = "redis"

    def __init__(
        self,
        client: Client,
        seal: Seal,
        *,
        prefix: str = "gmr:",
        ttl_seconds: int = 604_800,
        budget_seconds: float = 0.05,
        connections: int = 16,
    ) -> None:
        self._client = client
        self._seal = seal
        self._prefix = prefix.encode()
        self._ttl = ttl_seconds
        self._budget = budget_seconds
        self._turns = asyncio.Semaphore(connections)
        self._breakers: dict[Operation, Breaker] = {
            "get": Breaker(failures=FAILURES, seconds=REST_SECONDS),
            "set": Breaker(failures=FAILURES, seconds=REST_SECONDS),
        }
        self._attempts: dict[Operation, set[asyncio.Task[Any]]] = {"get": set(), "set": set()}
        self._calls: set[asyncio.Task[Any]] = set()
        for operation, breaker in self._breakers.items():
            CACHE_CIRCUIT.labels(operation).set_function(partial(_state_of, breaker))

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        asked = keys[:MOST_KEYS]
        misses: list[Scored | None] = [None] * len(keys)
        nobody_waits = self._breakers["get"].state != "closed"
        reading = self._begin("get", partial(self._read, asked), self._budget)
        if reading is None or nobody_waits:  # a probe decides about the next ones
            return misses
        values = await asyncio.shield(reading)
        if values is None:
            return misses
        return [
            self._opened(key, value) for key, value in zip(asked, values, strict=True)
        ] + misses[len(asked) :]

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Begin to write; returns before anything is sent."""
        now = time.time()
        values = [
            (self._name(key), self._seal.close(key, score, now)) for key, score in scores.items()
        ]
        for first in range(0, len(values), PAIRS_A_WRITE):
            self._begin(
                "set",
                partial(self._write, values[first : first + PAIRS_A_WRITE]),
                2 * GIVE_UP_SECONDS,
            )

    async def warm_up(self) -> None:
        """Open a first connection, so that no request waits for it; say so where that fails."""
        reading = self._begin("get", partial(self._read, [bytes(TAG_BYTES)]), 2 * GIVE_UP_SECONDS)
        if reading is not None and await asyncio.shield(reading) is None:
            log(
                "the score cache's Redis does not answer: scores are kept in memory only",
                logging.WARNING,
            )

    async def close(self) -> None:
        """Let what is under way end, for a bounded time, and disconnect."""
        tasks = {*self._attempts["get"], *self._attempts["set"], *self._calls}
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=2 * GIVE_UP_SECONDS)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        await self._client.aclose()

    def _begin(
        self, operation: Operation, call: Callable[[], Coroutine[Any, Any, Reply]], patience: float
    ) -> asyncio.Task[Reply | None] | None:
        """Start a call; None: it is not to be made now. The task never fails: no reply is a
        failure, which has been counted."""
        if len(self._attempts[operation]) >= MOST_UNDER_WAY[operation]:
            CACHE_SKIPPED.labels(operation, "backlog").inc()
            return None
        if not self._breakers[operation].enter():
            CACHE_SKIPPED.labels(operation, "circuit_open").inc()
            return None
        attempt = asyncio.create_task(self._attempt(operation, call, patience))
        self._attempts[operation].add(attempt)
        attempt.add_done_callback(self._attempts[operation].discard)
        return attempt

    async def _attempt(
        self, operation: Operation, call: Callable[[], Coroutine[Any, Any, Reply]], patience: float
    ) -> Reply | None:
        """Make a call when it is its turn, and wait for the reply as long as patience, in seconds,
        lasts."""
        clock = asyncio.get_running_loop().time
        began = clock()
        kind: str | None = None
        try:
            await self._turn(began + patience)
            reply = await self._patiently(self._called(call), began + patience)
        except Exception as error:
            kind = failure_kind(error)
        CACHE_SECONDS.labels(operation).observe(clock() - began)
        self._settle(operation, kind)
        return None if kind else reply

    async def _turn(self, due: float) -> None:
        try:
            async with asyncio.timeout_at(due):
                await self._turns.acquire()
        except TimeoutError:
            raise MaxConnectionsError from None

    def _called(self, call: Callable[[], Coroutine[Any, Any, Reply]]) -> asyncio.Task[Reply]:
        """A call on its way. It keeps its turn until it ends, even where nobody waits for it any
        longer."""
        task = asyncio.create_task(call())
        self._calls.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        self._turns.release()
        if not call.cancelled():
            call.exception()  # nobody may be left to ask for it

    async def _patiently(self, call: asyncio.Task[Reply], due: float) -> Reply:
        """The reply, if it comes until `due` (event loop time). That this process was late itself
        is not held against Redis."""
        clock = asyncio.get_running_loop().time
        await asyncio.wait({call}, timeout=due - clock())
        if not call.done():
            await asyncio.wait({call}, timeout=min(clock() - due, self._budget))
        if not call.done():
            raise TimeoutError
        return call.result()

    def _settle(self, operation: Operation, kind: str | None) -> None:
        """Tell the breaker what became of an attempt; a lack of turns says nothing about Redis."""
        breaker = self._breakers[operation]
        before = breaker.state
        breaker.leave(None if kind == "pool" else kind is None)
        if kind:
            CACHE_FAILURES.labels(operation, kind).inc()
        if before == "closed" and breaker.state == "open":
            log("Redis is left alone for a while", logging.WARNING, operation=operation, kind=kind)
        elif before != "closed" and breaker.state == "closed":
            log("Redis answers again", operation=operation)

    async def _read(self, keys: Sequence[bytes]) -> list[object]:
        values: object = await self._client.mget([self._name(key) for key in keys])
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError("a reply of another shape")
        return values

    async def _write(self, values: Sequence[tuple[bytes, bytes]]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for name, value in values:
                pipe.execute_command("SET", name, value, "EX", self._ttl)
            failure = first_failure(await pipe.execute(raise_on_error=False))
        if failure:
            raise failure

    def _opened(self, key: bytes, value: object) -> Scored | None:
        """The score in a value; one that is not to be believed is written over when the pair is
        scored anew."""
        if value is None:
            return None
        score = self._seal.open(key, value)
        if isinstance(score, str):
            CACHE_REJECTED.labels(score).inc()
            return None
        return score

    def _name(self, key: bytes) -> bytes:
        """A key as Redis knows it. The braces make a Cluster place it by its tag alone, so that one
        MGET finds a question's."""
        return self._prefix + b"{" + key[:TAG_BYTES].hex().encode() + b"}" + key[TAG_BYTES:]
