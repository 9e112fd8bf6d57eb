"""The window of feedback: records of recent answers, in memory and in Redis.

The module depends on keys and encoded records, on no HTTP. Invariant: a record is found by the
scope and the request id that it was put with, and by no others; after its time it is not found.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from service.errors import Overloaded
from service.gateway.feedback.record import AnswerRecord, RecordKeys, encoded
from service.gateway.feedback.redis_tier import RedisRecords
from service.gateway.images.byte_index import ByteIndex
from service.observability.feedback_metrics import FEEDBACK_RECORD_BYTES

_ENTRY_BYTES = 560
"""Memory of an entry beside its record, as measured: 460 and what the tables have free."""
_PURGED_AT_ONCE = 16


class AnswerWindow:
    """Records for `seconds`, up to `max_bytes` of memory; the oldest go first, and those of a scope
    that has more than half of them before those of others."""

    def __init__(
        self,
        keys: RecordKeys,
        redis: RedisRecords | None,
        *,
        max_bytes: int,
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._redis = redis
        self._seconds = seconds
        self._clock = clock
        self._index = ByteIndex(max_bytes)
        self._records: dict[bytes, tuple[float, bytes]] = {}

    def put(self, scope: str, record: AnswerRecord) -> None:
        """Keep a record from the time of its answer on; one of the same request id is replaced."""
        key, scope_id = self._keys.key(scope, record.request_id), self._keys.scope_id(scope)
        self._purge()
        value = encoded(record)
        self._records[key] = record.at + self._seconds, value
        for gone in self._index.add(scope_id, key, len(value) + _ENTRY_BYTES):
            self._records.pop(gone, None)
        FEEDBACK_RECORD_BYTES.labels("memory").set(self._index.total)
        if self._redis is not None:
            self._redis.write(key, scope_id, self._keys.sealed(key, value))

    async def get(self, scope: str, request_id: str) -> AnswerRecord | None:
        """The record of a request; raises `Overloaded` where Redis might have it and fails."""
        key = self._keys.key(scope, request_id)
        ends_at, value = self._records.get(key, (0.0, b""))
        if self._clock() < ends_at:
            return self._keys.decoded(value)
        if self._redis is None:
            return None

        found = await self._redis.read(key)
        if found is None:
            raise Overloaded("Earlier answers cannot be looked up at the moment.")
        opened = self._keys.opened(key, found) if found else None
        record = None if opened is None else self._keys.decoded(opened)
        return record if record and self._clock() < record.at + self._seconds else None

    async def remove(self, scope: str, request_id: str) -> None:
        """Forget a record, here and in Redis; raises `Overloaded` where Redis may still have it."""
        key = self._keys.key(scope, request_id)
        self._drop(key)
        if self._redis is not None and not await self._redis.remove(key):
            raise Overloaded("Earlier answers cannot be forgotten at the moment.")

    async def warm_up(self) -> None:
        """Open a connection to Redis."""
        if self._redis is not None:
            await self._redis.warm_up()

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.close()

    def _purge(self) -> None:
        """Drop some of the records whose time is over."""
        now = self._clock()
        for _ in range(_PURGED_AT_ONCE):
            oldest = self._index.oldest()
            if oldest is None or now < self._records[oldest][0]:
                return
            self._drop(oldest)

    def _drop(self, key: bytes) -> None:
        self._index.remove(key)
        self._records.pop(key, None)
