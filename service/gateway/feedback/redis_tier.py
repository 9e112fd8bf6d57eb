"""Records of answers in Redis, where every gateway finds them.

The module depends on keys and sealed values, on no request. Each command names one key, so that it
goes to any node of a Cluster, and is one that the score cache and stored images use, too. A gateway
removes the oldest of its own records beyond its bound. Invariant: a failed call is told apart from
a record that is not there, and nothing waits beyond the budget.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, TypeAlias

from service.gateway.cache.redis_calls import RedisCalls
from service.gateway.cache.redis_client import SOCKET_TIMEOUT_SECONDS, Client
from service.gateway.images.byte_index import ByteIndex
from service.observability.feedback_metrics import FEEDBACK_RECORD_BYTES
from service.observability.logs import log

CONNECTIONS = 4
"""Connections to each node, apart from those of scores."""
MAX_RECORD_BYTES = 2**25
"""No larger value is read: the record of 100,000 documents with the longest ids takes less."""
_ENTRY_BYTES = 220
"""Memory of an entry here beside its record, which is about as much in Redis."""
_MAX_PENDING = 1_024
_BUDGET_SECONDS = 1.0
"""The longest wait for a call, longer than for scores: no rerank request waits for it."""
_Attempt: TypeAlias = asyncio.Task[list[object] | None]


class RedisRecords:
    """Sealed records in Redis for `ttl_seconds`, up to `max_bytes` of this gateway."""

    def __init__(self, client: Client, *, prefix: str, max_bytes: int, ttl_seconds: int) -> None:
        self._prefix = prefix.encode() + b"feedback:"
        self._ttl = ttl_seconds
        self._index = ByteIndex(max_bytes)
        self._writing: dict[bytes, _Attempt] = {}
        self._calls = RedisCalls(
            client,
            {"feedback_get": _MAX_PENDING, "feedback_set": _MAX_PENDING},
            connections=CONNECTIONS,
            grace_seconds=_BUDGET_SECONDS,
        )

    def write(self, key: bytes, scope: bytes, value: bytes) -> None:
        """Start to write a value, and return before anything is sent."""
        gone = self._index.add(scope, key, len(value) + _ENTRY_BYTES)
        commands: list[tuple[Any, ...]] = [(b"SET", self._name(key), value, b"EX", self._ttl)]
        commands += [(b"UNLINK", self._name(name)) for name in gone]
        writing = self._calls.send("feedback_set", commands, 2 * SOCKET_TIMEOUT_SECONDS)
        if writing is not None:
            self._writing[key] = writing
            writing.add_done_callback(partial(self._written, key))
        FEEDBACK_RECORD_BYTES.labels("redis").set(self._index.total)

    async def read(self, key: bytes) -> bytes | None:
        """The value of a key, empty where there is none; None where Redis does not answer."""
        commands = [(b"GETRANGE", self._name(key), 0, MAX_RECORD_BYTES)]
        reading = self._calls.send("feedback_get", commands, _BUDGET_SECONDS)
        replies = None if reading is None else await asyncio.shield(reading)
        if not replies or not isinstance(replies[0], bytes):
            return None
        return replies[0]

    async def remove(self, key: bytes) -> bool:
        """Remove a value, whichever gateway wrote it; False where Redis does not answer."""
        writing = self._writing.get(key)
        if writing is not None:  # on another connection, where it may come second
            await asyncio.shield(writing)
        self._index.remove(key)
        removing = self._calls.send("feedback_set", [(b"UNLINK", self._name(key))], _BUDGET_SECONDS)
        return removing is not None and await asyncio.shield(removing) is not None

    async def warm_up(self) -> None:
        """Open a first connection; a failure is logged."""
        if await self.read(b"") is None:
            log(
                "Redis takes no records of answers: feedback is taken by the gateway that answered",
                logging.WARNING,
            )

    async def close(self) -> None:
        """Wait for the calls under way, for a bounded time, and disconnect."""
        await self._calls.close()

    def _written(self, key: bytes, writing: _Attempt) -> None:
        if self._writing.get(key) is writing:
            del self._writing[key]

    def _name(self, key: bytes) -> bytes:
        return self._prefix + key
