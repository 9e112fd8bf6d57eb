"""Images in Redis: gateways share them, and a Redis that fails or lies loses images and nothing
else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from service.gateway.cache.redis_client import open_client
from service.gateway.cache.redis_url import read_address
from service.gateway.images.in_use import ImagesInUse
from service.gateway.images.memory_tier import MemoryImages
from service.gateway.images.redis_tier import CONNECTIONS, RedisImages
from service.gateway.images.store import ImageStore
from service.limits import Limits
from tests.gateway.images.storing import gateway, image, missing, noise, put, ranks
from tests.gateway.images.test_disk_tier import MEMORY_BYTES, TTL, checked, has
from tests.gateway.redis_tiers import SECRET, holds, pretender
from tests.metrics import metric_value
from tests.processes import RedisServer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """A healthy server, empty."""
    shared.command("FLUSHALL")
    return shared


@asynccontextmanager
async def store(
    url: str, *, secret: bytes = SECRET, max_bytes: int = 2**20, **options: Any
) -> AsyncIterator[ImageStore]:
    """A store with nothing in its memory, over a Redis."""
    made = {"prefix": "gmr:", "ttl_seconds": TTL, "budget_seconds": 10.0}
    client = open_client(read_address(url), connections=CONNECTIONS)
    tier = RedisImages(
        client,
        secret,
        max_bytes=max_bytes,
        max_image_bytes=Limits().max_image_bytes,
        **(made | options),
    )
    memory = MemoryImages(MEMORY_BYTES, TTL)
    in_use = ImagesInUse(MEMORY_BYTES)
    yield ImageStore(Limits(), memory, [tier], in_use, ttl_seconds=TTL, tier_seconds=10.0)
    await tier.close()


async def values(redis: RedisServer) -> dict[bytes, bytes]:
    async with open_client(read_address(redis.url)) as client:
        return {key: await client.get(key) for key in await client.keys("*")}


def failures(operation: str, kind: str) -> float:
    return metric_value("rerank_cache_failures_total", operation=operation, kind=kind)


async def test_what_is_put_at_one_gateway_is_known_to_the_other(
    redis: RedisServer, tmp_path: Path
) -> None:
    settings = {"redis_url": SecretStr(redis.url), "cache_key_secret": SecretStr("s" * 16)}
    async with gateway(tmp_path, **settings) as one, gateway(tmp_path, **settings) as other:
        data = [noise(number) for number in range(9)]
        await put(one["one"], *data)
        assert await missing(other["one"], *data) == []
        answer = await ranks(other["one"], *data)
        assert len(answer.json()["results"]) == len(data), answer.text
        assert len(await missing(other["other"], *data)) == len(data)


async def test_names_in_redis_tell_no_digest_and_scopes_share_none(redis: RedisServer) -> None:
    async with store(redis.url) as gateway:
        await gateway.put([checked(image(1))], "one")
        await gateway.put([checked(image(1))], "other")
    found = await values(redis)
    assert list(found.values()) == [image(1)] * 2
    for key in found:
        assert key.startswith(b"gmr:image:")
        assert checked(image(1)).digest not in key

    async with store(redis.url, secret=b"another") as stranger:
        assert not await has(stranger, image(1))


@pytest.mark.parametrize("value", [b"", b"no image", image(2), image(1) + b"\0", image(1)[:-1]])
async def test_a_value_that_is_not_the_image_is_a_miss(redis: RedisServer, value: bytes) -> None:
    async with store(redis.url) as one:
        await one.put([checked(image(1))], "one")
    (key,) = await values(redis)
    async with open_client(read_address(redis.url)) as client:
        await client.set(key, value)

    async with store(redis.url) as other:
        assert not await has(other, image(1))
        await other.put([checked(image(1))], "one")
    async with store(redis.url) as again:
        assert await has(again, image(1))


async def test_a_value_of_any_size_is_read_up_to_the_size_of_an_image(redis: RedisServer) -> None:
    async with store(redis.url) as one:
        await one.put([checked(image(1))], "one")
    (key,) = await values(redis)
    async with open_client(read_address(redis.url)) as client:
        await client.setrange(key, 20 * 2**20, "x")
        before = metric_value("rerank_image_rejected_total", tier="redis")
        async with store(redis.url) as other:
            assert not await has(other, image(1))
        assert metric_value("rerank_image_rejected_total", tier="redis") == before + 1


async def test_images_expire_unless_they_are_referred_to(redis: RedisServer) -> None:
    async with store(redis.url, ttl_seconds=1000) as one:
        await one.put([checked(image(1))], "one")
        (key,) = await values(redis)
        async with open_client(read_address(redis.url)) as client:
            assert 900 < await client.ttl(key) <= 1000

            # asking what is missing promises the rest for the whole time
            await client.expire(key, 10)
            async with store(redis.url, ttl_seconds=1000) as other:
                assert await other.missing([checked(image(1)).digest], "one") == set()
            assert 900 < await client.ttl(key) <= 1000


async def test_an_image_in_use_is_renewed_and_written_again_where_it_was_lost(
    redis: RedisServer,
) -> None:
    clock = [0.0]
    client = open_client(read_address(redis.url), connections=CONNECTIONS)
    tier = RedisImages(
        client,
        SECRET,
        prefix="gmr:",
        max_bytes=2**20,
        max_image_bytes=2**20,
        ttl_seconds=TTL,
        budget_seconds=10.0,
    )
    memory = MemoryImages(MEMORY_BYTES, TTL, clock=lambda: clock[0])
    in_use = ImagesInUse(MEMORY_BYTES)
    made = ImageStore(Limits(), memory, [tier], in_use, ttl_seconds=TTL, tier_seconds=10.0)
    async with made.running():
        await made.put([checked(image(1))], "one")
        redis.command("FLUSHALL")
        assert await has(made, image(1))
        assert await values(redis) == {}

        clock[0] += TTL / 9
        assert await has(made, image(1))
        await holds(lambda: redis.command("DBSIZE") == "1")

        clock[0] += TTL + 1
        redis.command("FLUSHALL")
        assert not await has(made, image(1))


async def test_a_gateway_keeps_its_bound_in_redis(redis: RedisServer) -> None:
    size = len(noise(0))
    async with store(redis.url, max_bytes=4 * size) as gateway:
        for number in range(10):
            await gateway.put([checked(noise(number))], f"scope {number % 3}")
    assert sum(map(len, (await values(redis)).values())) <= 4 * size


async def test_no_more_is_needed_of_redis_than_is_documented(redis: RedisServer) -> None:
    commands = ["+mget", "+set", "+select", "+getrange", "+expire", "+unlink"]
    rules = ["on", ">hunter2", "resetkeys", "~gmr:*", "-@all", *commands]
    assert redis.command("ACL", "SETUSER", "gmr", *rules) == "OK"
    url = f"redis://gmr:hunter2@127.0.0.1:{redis.port}/2"
    size = len(noise(0))
    async with store(url, max_bytes=3 * size) as one, store(url) as other:
        for number in range(6):
            await one.put([checked(noise(number))], "one")
        assert await other.missing([checked(noise(5)).digest], "one") == set()
        assert await has(other, noise(5))
    assert redis.command("ACL", "LOG") == ""


async def test_without_the_commands_of_images_they_are_kept_in_memory(redis: RedisServer) -> None:
    rules = ["on", ">hunter2", "resetkeys", "~gmr:*", "-@all", "+mget", "+select"]
    redis.command("ACL", "SETUSER", "few", *rules)
    before = failures("image_set", "auth")
    async with store(f"redis://few:hunter2@127.0.0.1:{redis.port}/0") as gateway:
        await gateway.put([checked(image(1))], "one")
        assert await has(gateway, image(1))
        assert not await has(gateway, image(2))
    assert failures("image_set", "auth") == before + 1


async def test_a_redis_that_is_away_is_left_alone(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        url = server.url
    async with store(url, breaker_seconds=60.0) as gateway:
        for number in range(12):
            await gateway.put([checked(image(number))], "one")
            assert await has(gateway, image(number))
    assert metric_value("rerank_cache_circuit_state", operation="image_set") == 2


async def test_a_redis_that_says_nothing_costs_a_request_its_budget(tmp_path: Path) -> None:
    async with pretender(lambda words: b"") as (address, heard):
        async with store(f"redis://{address}/0", budget_seconds=0.05) as gateway:
            await gateway.put([checked(image(1))], "one")
            assert await has(gateway, image(1))
        assert any(b"SET" in words for words in heard)
