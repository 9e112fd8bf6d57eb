"""The cache's tier in Redis, which gateways share and which no request waits for beyond a budget.

The module depends on keys, encoded values and calls, on no query and no request. Invariant: a
value is used only if it was encoded for its key; every failure is a miss, counted by its kind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.gateway.cache.encoding import ScoreCodec
from service.gateway.cache.keys import TAG_BYTES
from service.gateway.cache.redis_calls import BREAKER_SECONDS, Operation, RedisCalls
from service.gateway.cache.redis_client import SOCKET_TIMEOUT_SECONDS, Client
from service.observability.logs import log
from service.observability.metrics import CACHE_REJECTED
from service.wire import Scored


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
        self._codec = codec
        self._prefix = prefix.encode()
        self._ttl = ttl_seconds
        self._budget = budget_seconds
        self._limits = limits or RedisLimits()
        self._calls = RedisCalls(
            client,
            {"get": self._limits.pending_reads, "set": self._limits.pending_writes},
            connections=connections,
            grace_seconds=budget_seconds,
            breaker_seconds=breaker_seconds,
        )

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        misses: list[Scored | None] = [None] * len(keys)
        requested = keys[: self._limits.keys_per_read]

        is_probe = not self._calls.is_closed("get")
        reading = self._calls.start("get", partial(self._read, requested), self._budget)
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
        commands: list[tuple[Any, ...]] = []
        for key, score in scores.items():
            value = self._codec.encode(key, score, now)
            commands.append(("SET", self._redis_key(key), value, "EX", self._ttl))

        size = self._limits.pairs_per_write
        for start in range(0, len(commands), size):
            self._calls.send("set", commands[start : start + size], 2 * SOCKET_TIMEOUT_SECONDS)

    def pending(self, operation: Operation) -> int:
        """The number of attempts that have not ended."""
        return self._calls.pending(operation)

    async def warm_up(self) -> None:
        """Open a first connection, so that no request waits for it; a failure is logged."""
        read = partial(self._read, [bytes(TAG_BYTES)])
        reading = self._calls.start("get", read, 2 * SOCKET_TIMEOUT_SECONDS)
        if reading is not None and await asyncio.shield(reading) is None:
            log(
                "the score cache's Redis does not answer: scores are kept in memory only",
                logging.WARNING,
            )

    async def close(self) -> None:
        """Wait for the calls under way, for a bounded time, and disconnect."""
        await self._calls.close()

    async def _read(self, keys: Sequence[bytes]) -> list[object]:
        values: object = await self._calls.client.mget([self._redis_key(key) for key in keys])
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError("a reply of another shape")
        return values

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
