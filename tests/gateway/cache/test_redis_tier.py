"""Gateways with one secret share scores in Redis: small values that expire, at one read and one
write for a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from service.gateway.cache.encoding import ENCODED_BYTES
from service.gateway.cache.redis_client import open_client
from service.gateway.cache.redis_tier import RedisLimits
from service.gateway.cache.redis_url import read_address
from tests.gateway.redis_tiers import (
    Since,
    calls,
    key_of,
    pretender,
    score_of,
    tier_on,
    written,
)
from tests.metrics import metric_value
from tests.processes import RedisServer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A healthy server, for tests that do it no harm."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """The healthy server, empty."""
    shared.command("FLUSHALL")
    return shared


def stored_as(key: bytes, prefix: str = "gmr:") -> bytes:
    return prefix.encode() + b"{" + key[:4].hex().encode() + b"}" + key[4:]


async def test_what_one_gateway_writes_another_finds(redis: RedisServer) -> None:
    async with tier_on(redis.url) as one, tier_on(redis.url) as other:
        await written(one, "a", "b")
        found = await other.get_many([key_of("b"), key_of("unknown"), key_of("a"), key_of("b")])
    assert found == [score_of("b"), None, score_of("a"), score_of("b")]


async def test_another_secrets_scores_are_not_believed(redis: RedisServer) -> None:
    before = metric_value("rerank_cache_rejected_total", reason="mac")
    async with tier_on(redis.url) as one, tier_on(redis.url, secret=b"another") as other:
        await written(one, "a")
        assert await other.get_many([key_of("a")]) == [None]

    assert metric_value("rerank_cache_rejected_total", reason="mac") == before + 1


async def test_prefixes_keep_services_apart(redis: RedisServer) -> None:
    async with (
        tier_on(redis.url, prefix="one:") as one,
        tier_on(redis.url, prefix="other:") as other,
    ):
        await written(one, "a")
        assert await other.get_many([key_of("a")]) == [None]
        assert await one.get_many([key_of("a")]) == [score_of("a")]


async def test_a_score_is_one_small_string_that_expires(redis: RedisServer) -> None:
    async with tier_on(redis.url, ttl_seconds=1000) as tier:
        await written(tier, "a")
    async with open_client(read_address(redis.url)) as client:
        name = stored_as(key_of("a"))
        assert await client.strlen(name) == ENCODED_BYTES
        assert 900 < await client.ttl(name) <= 1000
        assert redis.command("DBSIZE") == "1"


async def test_a_request_costs_one_read_and_one_write(redis: RedisServer) -> None:
    async with tier_on(redis.url) as tier:
        await tier.warm_up()
        redis.command("CONFIG", "RESETSTAT")
        before = calls("get"), calls("set")
        await tier.get_many([key_of(each) for each in range(100)])
        await written(tier, *range(100))

        assert (calls("get"), calls("set")) == (before[0] + 1, before[1] + 1)

    said = redis.command("INFO", "commandstats")

    assert "cmdstat_mget:calls=1," in said
    assert "cmdstat_set:calls=100," in said


async def test_more_keys_than_one_read_takes_are_misses(redis: RedisServer) -> None:
    limits = RedisLimits(keys_per_read=3, pairs_per_write=2)
    async with tier_on(redis.url, limits=limits) as tier:
        await written(tier, *range(5))
        found = await tier.get_many([key_of(each) for each in range(5)])

    assert found == [score_of(0), score_of(1), score_of(2), None, None]
    assert redis.command("DBSIZE") == "5"


async def test_two_hundred_at_once_share_few_connections(redis: RedisServer) -> None:
    async with tier_on(redis.url, connections=4) as tier:
        await written(tier, *range(200))
        before = Since()
        found = await asyncio.gather(*(tier.get_many([key_of(each)]) for each in range(200)))

        assert found == [[score_of(each)] for each in range(200)]
        assert before("get") == {}
        assert (
            int(redis.command("INFO", "clients").split("connected_clients:")[1].split()[0]) <= 4 + 1
        )


async def test_what_is_being_written_at_the_end_is_still_written(redis: RedisServer) -> None:
    async with tier_on(redis.url) as tier:
        for name in range(20):
            await tier.set_many({key_of(name): score_of(name)})
    assert redis.command("DBSIZE") == "20"


async def test_our_own_slowness_is_not_held_against_redis(redis: RedisServer) -> None:
    async with tier_on(redis.url, budget_seconds=0.05) as tier:
        await written(tier, "a")
        before = Since()
        for steps in range(8):  # wherever the read has got to by then
            read = asyncio.create_task(tier.get_many([key_of("a")]))
            for _ in range(steps):
                await asyncio.sleep(0)
            # block the event loop while the reply waits in the socket
            time.sleep(0.08)

            assert await read == [score_of("a")]

        assert before("get") == {}


@pytest.mark.parametrize(
    ("url", "first"),
    [
        ("redis://", []),
        ("redis://:p@", [[b"AUTH", b"p"]]),
        ("redis://u:p@", [[b"AUTH", b"u", b"p"]]),
    ],
)
@pytest.mark.parametrize("database", [0, 3])
async def test_a_new_connection_says_no_more_than_it_must(
    url: str, first: list[list[bytes]], database: int
) -> None:
    def answer(words: list[bytes]) -> bytes:
        return b"*1\r\n$-1\r\n" if words[0] == b"MGET" else b"+OK\r\n"

    async with pretender(answer) as (where, heard), tier_on(f"{url}{where}/{database}") as tier:
        assert await tier.get_many([key_of("a")]) == await tier.get_many([key_of("a")]) == [None]
    asked = [b"MGET", stored_as(key_of("a"))]

    assert heard == [
        [],
        *first,
        *([[b"SELECT", b"%d" % database]] if database else []),
        asked,
        asked,
    ]
