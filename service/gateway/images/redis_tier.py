"""Stored images in Redis, which gateways share.

The module depends on keys and on calls within a budget, on no image format. Values are the images'
bytes as they are: the digest in a request authenticates them, because every read is verified. Each
command names one key, so that it goes to any node of a Cluster. A gateway keeps an index of what it
wrote, and removes the least recently used beyond its bound; what a process wrote before it ended
goes by its time. Invariant: every failure is a miss, and no request waits beyond the budget.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from service.gateway.cache.redis_calls import BREAKER_SECONDS, Operation, RedisCalls
from service.gateway.cache.redis_client import SOCKET_TIMEOUT_SECONDS, Client
from service.gateway.images.byte_index import ByteIndex
from service.gateway.images.keys import ImageKey
from service.observability.image_metrics import IMAGE_STORE_BYTES, IMAGE_STORE_LIMIT_BYTES
from service.observability.logs import log

WRITE_BYTES = 8 * 2**20
"""Bytes of images above which a further one is written by a call of its own."""
KEYS_AT_ONCE = 1_000
CONNECTIONS = 4
"""Connections to each node, apart from those of scores, which are small and do not wait for
images."""
_MAX_PENDING = 256


class RedisImages:
    """Images in Redis, up to `max_bytes` of this gateway, each for `ttl_seconds`.

    `secret` keys the names, so that none can be computed outside of the service. No value is read
    beyond `max_image_bytes`. `budget_seconds` is how long a write and a renewal are waited for.
    """

    name: Literal["redis"] = "redis"

    def __init__(
        self,
        client: Client,
        secret: bytes,
        *,
        prefix: str,
        max_bytes: int,
        max_image_bytes: int,
        ttl_seconds: int,
        budget_seconds: float,
        breaker_seconds: float = BREAKER_SECONDS,
    ) -> None:
        self._secret = hmac.digest(secret, b"gmr-rerank image name", "sha256")
        self._prefix = prefix.encode() + b"image:"
        self._last = max_image_bytes  # one byte more than an image may have
        self._ttl = ttl_seconds
        self._budget = budget_seconds
        self._index = ByteIndex(max_bytes)
        self._calls = RedisCalls(
            client,
            {"image_get": _MAX_PENDING, "image_set": _MAX_PENDING},
            connections=CONNECTIONS,
            grace_seconds=budget_seconds,
            breaker_seconds=breaker_seconds,
        )
        IMAGE_STORE_LIMIT_BYTES.labels(self.name).set(max_bytes)

    async def read(self, keys: Sequence[ImageKey], seconds: float) -> dict[ImageKey, bytes]:
        # a value of another may have any size
        commands = [(b"GETRANGE", self._redis_key(key.name), 0, self._last) for key in keys]
        values = await self._reply("image_get", commands, seconds)

        found: dict[ImageKey, bytes] = {}
        for key, value in zip(keys, values, strict=False):
            if isinstance(value, bytes) and value:
                found[key] = value
        return found

    async def write(self, images: Mapping[ImageKey, bytes]) -> None:
        for batch in _batches(images):
            commands: list[tuple[Any, ...]] = []
            for key, data in batch:
                gone = self._index.add(key.scope, key.name, len(data))
                commands.append((b"SET", self._redis_key(key.name), data, b"EX", self._ttl))
                commands += [(b"UNLINK", self._redis_key(name)) for name in gone]
            await self._reply("image_set", commands, self._budget)
        IMAGE_STORE_BYTES.labels(self.name).set(self._index.total)

    async def renew(self, keys: Collection[ImageKey]) -> set[ImageKey]:
        listed = list(keys)
        renewed: set[ImageKey] = set()
        for start in range(0, len(listed), KEYS_AT_ONCE):
            part = listed[start : start + KEYS_AT_ONCE]
            commands = [(b"EXPIRE", self._redis_key(key.name), self._ttl) for key in part]
            replies = await self._reply("image_get", commands, self._budget)
            for key, reply in zip(part, replies, strict=False):
                self._index.use(key.name)
                if reply:
                    renewed.add(key)
        return renewed

    async def sweep(self) -> None:
        """Redis removes by itself what is over its time."""

    async def warm_up(self) -> None:
        """Open a first connection; a failure is logged."""
        commands = [(b"GETRANGE", self._redis_key(b""), 0, self._last)]
        reading = self._calls.send("image_get", commands, 2 * SOCKET_TIMEOUT_SECONDS)
        if reading is not None and await asyncio.shield(reading) is None:
            log("Redis takes no images: they are kept elsewhere", logging.WARNING)

    async def close(self) -> None:
        await self._calls.close()

    async def _reply(
        self, operation: Operation, commands: Sequence[tuple[Any, ...]], seconds: float
    ) -> list[object]:
        """The replies to commands, each waited for so long at most; none after a failure."""
        if not commands:
            return []
        is_probe = not self._calls.is_closed(operation)
        attempt = self._calls.send(operation, commands, seconds)
        # no request waits for a probe, whose outcome is for the requests after it
        if attempt is None or is_probe:
            return []
        return await asyncio.shield(attempt) or []

    def _redis_key(self, name: bytes) -> bytes:
        return self._prefix + hmac.digest(self._secret, name, "sha256")


def _batches(images: Mapping[ImageKey, bytes]) -> Iterable[list[tuple[ImageKey, bytes]]]:
    """Images in batches of about `WRITE_BYTES`."""
    batch: list[tuple[ImageKey, bytes]] = []
    size = 0
    for key, data in images.items():
        if batch and size + len(data) > WRITE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((key, data))
        size += len(data)
    if batch:
        yield batch
