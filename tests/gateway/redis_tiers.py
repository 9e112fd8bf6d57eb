"""Tiers of the score cache on a real redis-server, and servers that misbehave."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from service.gateway.cache.encoding import ScoreCodec
from service.gateway.cache.redis_client import open_client
from service.gateway.cache.redis_tier import RedisTier
from service.gateway.cache.redis_url import read_address
from service.wire import Scored
from tests.metrics import metric_value

SECRET = b"a secret that gateways share"
FAILURE_KINDS = ("auth", "connection", "oom", "other", "pool", "readonly", "timeout")
BUDGET = 5.0
"""Seconds; generous where a test is not about time: this machine may be busy with others."""


@asynccontextmanager
async def tier_on(
    url: str, *, secret: bytes = SECRET, client: Any = None, **options: Any
) -> AsyncIterator[RedisTier]:
    """A tier, closed in the end. `client` are options of the client."""
    made = open_client(
        read_address(url), connections=options.get("connections", 16), **(client or {})
    )
    tier = RedisTier(made, ScoreCodec(secret), **{"budget_seconds": BUDGET} | options)
    try:
        yield tier
    finally:
        await tier.close()


@asynccontextmanager
async def pretender(
    answer: Callable[[list[bytes]], bytes | None],
) -> AsyncIterator[tuple[str, list[list[bytes]]]]:
    """A server that replies to a command with `answer` (None: it disconnects); yields its address
    and the commands that it has received.

    A new connection is recorded as an empty command.
    """
    heard: list[list[bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append([])
        reply: bytes | None = b""
        while reply is not None and (line := await reader.readline()):
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])

            heard.append(words)
            reply = answer(words)
            writer.write(reply or b"")
            await writer.drain()

        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


def key_of(name: object, tag: str = "question") -> bytes:
    """A key as `pair_keys` makes them: a tag, and a digest."""
    return hashlib.sha256(tag.encode()).digest()[:4] + hashlib.sha256(str(name).encode()).digest()


def score_of(name: object) -> Scored:
    """A score that is different for each name."""
    number = int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:2], "big")
    return Scored(number / 256 - 128, number + 10, number, number % 2 == 1)


async def holds(condition: Callable[[], Any]) -> None:
    """Wait until a condition, which may be a coroutine's, holds."""
    async with asyncio.timeout(60):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)


async def written(tier: RedisTier, *names: object, tag: str = "question") -> None:
    """Write the names' scores, and wait until they are there."""
    await tier.set_many({key_of(name, tag): score_of(name) for name in names})
    await holds(lambda: not tier.pending("set"))


def calls(operation: str) -> float:
    """Calls to Redis that were made."""
    return metric_value("rerank_cache_call_duration_seconds_count", operation=operation)


def failures(operation: str) -> dict[str, float]:
    """Failed calls by kind."""
    found: dict[str, float] = {}
    for kind in FAILURE_KINDS:
        value = metric_value("rerank_cache_failures_total", operation=operation, kind=kind)
        if value:
            found[kind] = value
    return found


class Since:
    """The failed calls to Redis since the object was made."""

    def __init__(self) -> None:
        self._before = self._now()

    def __call__(self, operation: str) -> dict[str, float]:
        """Failed calls by kind."""
        return {
            kind: value - self._before[operation].get(kind, 0)
            for kind, value in failures(operation).items()
            if value > self._before[operation].get(kind, 0)
        }

    @staticmethod
    def _now() -> dict[str, dict[str, float]]:
        return {operation: failures(operation) for operation in ("get", "set")}
