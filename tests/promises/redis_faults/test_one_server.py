"""One Redis that is killed, stalled, full or poisoned: a miss each time, never another answer; of
no use, it is left alone."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from service.gateway.app import create_gateway
from service.gateway.cache.encoding import ScoreCodec
from service.gateway.cache.redis_calls import BREAKER_FAILURES
from service.gateway.cache.redis_client import open_client
from service.gateway.cache.redis_tier import RedisLimits, RedisTier
from service.gateway.cache.redis_url import read_address
from service.gateway.settings import GatewaySettings
from service.wire import Scored
from tests.gateway.redis_tiers import (
    SECRET,
    Since,
    calls,
    holds,
    key_of,
    score_of,
    tier_on,
    written,
)
from tests.gateway.stand_in import StandIn, good
from tests.metrics import metric_value
from tests.processes import RedisServer

CLOSED, HALF_OPEN, OPEN = 0, 1, 2


def breaker_state(operation: str) -> float:
    return metric_value("rerank_cache_circuit_state", operation=operation)


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


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of a test's own, to harm."""
    with RedisServer(tmp_path) as server:
        yield server


def stored_as(key: bytes, prefix: str = "gmr:") -> bytes:
    return prefix.encode() + b"{" + key[:4].hex().encode() + b"}" + key[4:]


async def test_cancelled_requests_leave_no_reply_to_others(redis: RedisServer) -> None:
    """Redis clients have given one caller's reply to the next after a cancellation
    (CVE-2023-28858)."""
    async with tier_on(redis.url, connections=8) as tier:
        await written(tier, "a", "b")
        chance = random.Random(4)
        answers, cancelled = 0, 0
        for _ in range(60):
            reads = {
                asyncio.create_task(tier.get_many([key_of(name)] * size)): (name, size)
                for name, size in product("ab", range(1, 9))
            }
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            for read in chance.sample(list(reads), 8):
                read.cancel()
            for read, (name, size) in reads.items():
                try:
                    assert await read == [score_of(name)] * size
                    answers += 1
                except asyncio.CancelledError:
                    cancelled += 1

        assert cancelled > 400
        assert answers > 400
        await holds(lambda: not tier.pending("get"))

        # every connection is free again: of as many reads none finds the pool taken
        before = Since()
        redis.command("CLIENT", "PAUSE", "60000")
        await asyncio.gather(*(tier.get_many([key_of("a")]) for _ in range(8)))
        redis.command("CLIENT", "UNPAUSE")

        assert before("get") == {"timeout": 8}


@pytest.mark.parametrize("fault", ["killed", "stalled"])
async def test_a_dead_redis_is_a_miss_and_is_found_again(own: RedisServer, fault: str) -> None:
    async with tier_on(own.url, budget_seconds=0.05) as tier:
        await holds_after_writing(tier)
        before = Since()
        own.kill() if fault == "killed" else own.pause()
        for _ in range(BREAKER_FAILURES):
            assert await tier.get_many([key_of("a")]) == [None]

        assert sum(before("get").values()) == BREAKER_FAILURES
        assert set(before("get")) <= (
            {"connection", "timeout"} if fault == "killed" else {"timeout"}
        )

        own.start() if fault == "killed" else own.resume()
        await holds(lambda: back(tier))

        assert breaker_state("get") == CLOSED


@pytest.mark.parametrize("fault", ["killed", "stalled"])
async def test_a_dead_redis_is_not_asked_again_and_again(own: RedisServer, fault: str) -> None:
    async with tier_on(own.url, budget_seconds=0.05, breaker_seconds=3600.0) as tier:
        await holds_after_writing(tier)
        own.kill() if fault == "killed" else own.pause()
        for name in range(BREAKER_FAILURES):
            assert await tier.get_many([key_of("a")]) == [None]
            await tier.set_many({key_of(name): score_of(name)})

        await holds(lambda: not tier.pending("set"))

        assert breaker_state("get") == OPEN
        assert breaker_state("set") == OPEN

        made = calls("get"), calls("set")
        skipped = [
            metric_value("rerank_cache_skipped_total", operation=each, reason="circuit_open")
            for each in ("get", "set")
        ]
        for name in range(1000):
            assert await tier.get_many([key_of("a")]) == [None]
            await tier.set_many({key_of(name): score_of(name)})

        assert (calls("get"), calls("set")) == made
        now = [
            metric_value("rerank_cache_skipped_total", operation=each, reason="circuit_open")
            for each in ("get", "set")
        ]
        assert now == [before + 1000 for before in skipped]


async def test_no_request_waits_for_a_probe(own: RedisServer) -> None:
    async with tier_on(own.url, budget_seconds=1.0, breaker_seconds=0.0) as tier:
        await holds_after_writing(tier)
        own.pause()
        await asyncio.gather(*(tier.get_many([key_of("a")]) for _ in range(BREAKER_FAILURES)))
        own.resume()

        assert breaker_state("get") == HALF_OPEN

        # although Redis answers: this read is the probe that finds it out
        assert await tier.get_many([key_of("a")]) == [None]

        await holds(lambda: not tier.pending("get"))
        assert await tier.get_many([key_of("a")]) == [score_of("a")]


async def holds_after_writing(tier: RedisTier) -> None:
    await written(tier, "a")
    assert await tier.get_many([key_of("a")]) == [score_of("a")]


async def found(tier: RedisTier) -> bool:
    return await tier.get_many([key_of("a")]) == [score_of("a")]


async def back(tier: RedisTier) -> bool:
    """Write a score, and return True if it is found."""
    await written(tier, "a")
    return await found(tier)


async def test_late_replies_are_nobodys(own: RedisServer) -> None:
    async with tier_on(own.url, budget_seconds=0.05, connections=4) as tier:
        await written(tier, *range(64))
        own.pause()

        assert (
            await asyncio.gather(*(tier.get_many([key_of(each)]) for each in range(64)))
            == [[None]] * 64
        )
        own.resume()
        seen = 0
        for turn in range(128):
            (score,) = await tier.get_many([key_of(turn % 64)])
            assert score in (None, score_of(turn % 64))
            seen += score is not None
            await asyncio.sleep(0.005)

        assert seen


async def test_writes_to_a_stalled_redis_are_bounded_and_dropped(own: RedisServer) -> None:
    async with tier_on(own.url) as tier:
        await written(tier, "a")
        own.pause()
        before = metric_value("rerank_cache_skipped_total", operation="set", reason="backlog")
        for name in range(500):
            await tier.set_many({key_of(name): score_of(name)})
            assert tier.pending("set") <= RedisLimits().pending_writes

        dropped = (
            metric_value("rerank_cache_skipped_total", operation="set", reason="backlog") - before
        )

        assert dropped >= 500 - RedisLimits().pending_writes
        own.resume()
        await holds(lambda: not tier.pending("set"))
        await holds(lambda: back(tier))


async def test_a_full_redis_takes_nothing_and_still_answers(own: RedisServer) -> None:
    async with tier_on(own.url) as tier:
        await written(tier, "a")
        own.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        own.command("CONFIG", "SET", "maxmemory", "1")
        before = Since()
        await written(tier, "b", "c")

        assert before("set") == {"oom": 1}
        assert await tier.get_many([key_of("a"), key_of("b")]) == [score_of("a"), None]
        assert before("get") == {}


async def test_writes_that_fail_do_not_stop_reads(own: RedisServer) -> None:
    async with tier_on(own.url) as tier:
        await written(tier, "a")
        own.command("CONFIG", "SET", "maxmemory", "1")
        for name in range(2 * BREAKER_FAILURES):
            await written(tier, name)

        assert breaker_state("set") != CLOSED
        assert breaker_state("get") == CLOSED
        assert await tier.get_many([key_of("a")]) == [score_of("a")]


async def test_a_redis_that_evicts_forgets_and_never_errs(own: RedisServer) -> None:
    used = int(own.command("INFO", "memory").split("used_memory:")[1].split()[0])
    own.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    own.command("CONFIG", "SET", "maxmemory", str(used + 500_000))
    before = Since()
    async with tier_on(own.url) as tier:
        for first in range(0, 5_000, 500):
            await written(tier, *range(first, first + 500))
        scores = await tier.get_many([key_of(name) for name in range(5_000)])

    assert int(own.command("INFO", "stats").split("evicted_keys:")[1].split()[0]) > 0
    kept = {name: score for name, score in enumerate(scores) if score}
    assert 0 < len(kept) < 5_000
    assert kept == {name: score_of(name) for name in kept}
    assert (before("get"), before("set")) == ({}, {})


async def test_a_replica_is_read_and_not_written(own: RedisServer, redis: RedisServer) -> None:
    async with tier_on(redis.url) as master, tier_on(own.url) as tier:
        await written(master, "a")
        redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        own.command("REPLICAOF", "127.0.0.1", str(redis.port))
        await holds(lambda: "master_link_status:up" in own.command("INFO", "replication"))
        before = Since()
        await written(tier, "b")

        assert before("set") == {"readonly": 1}
        assert await tier.get_many([key_of("a"), key_of("b")]) == [score_of("a"), None]


OLD = struct.pack("<fII?", 1.5, 10, 0, False)


async def test_what_is_not_ours_is_no_score_until_it_is_written_over(redis: RedisServer) -> None:
    codec = ScoreCodec(SECRET)
    good = {name: codec.encode(key_of(name), score_of(name), 0) for name in range(20)}
    poison: dict[int, tuple[str, bytes]] = {
        0: ("size", b""),
        1: ("size", good[1][:-1]),
        2: ("size", good[2] + b"\0"),
        3: ("schema", b"\0" + good[3][1:]),
        4: ("schema", OLD),
        5: ("mac", good[6]),
        6: ("mac", good[5]),
        7: ("mac", good[7][:1] + struct.pack("<f", float("nan")) + good[7][5:]),
        8: ("mac", ScoreCodec(b"of others").encode(key_of(8), score_of(8), 0)),
        9: ("numbers", codec.encode(key_of(9), Scored(float("nan"), 1, 1, False), 0)),
        10: ("numbers", codec.encode(key_of(10), Scored(1.0, 1, 2, False), 0)),
        11: ("schema", b'{"logit": 5.0}'),
    }
    reasons = ("size", "schema", "mac", "numbers")
    before = {
        reason: metric_value("rerank_cache_rejected_total", reason=reason) for reason in reasons
    }
    names = [*poison, 12, 13]
    async with open_client(read_address(redis.url)) as client:
        for name, (_, value) in poison.items():
            await client.set(stored_as(key_of(name)), value)
        # MGET gives nil for a value that is no string
        await client.lpush(stored_as(key_of(12)), "a list")
        await client.hset(stored_as(key_of(13)), "a", "hash")

    async with tier_on(redis.url) as tier:
        assert await tier.get_many([key_of(name) for name in names]) == [None] * len(names)
        after = {
            reason: metric_value("rerank_cache_rejected_total", reason=reason) - before[reason]
            for reason in reasons
        }
        assert after == Counter(reason for reason, _ in poison.values())
        await written(tier, *names)
        assert await tier.get_many([key_of(name) for name in names]) == [
            score_of(name) for name in names
        ]


async def test_who_is_cancelled_while_redis_is_probed_does_not_leave_it_alone_for_ever(
    own: RedisServer,
) -> None:
    async with tier_on(own.url, budget_seconds=0.05) as tier:
        await written(tier, "a")
        own.pause()
        waiting = [
            asyncio.create_task(tier.get_many([key_of("a")])) for _ in range(BREAKER_FAILURES)
        ]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await holds(lambda: not tier.pending("get"))

        assert breaker_state("get") != CLOSED  # they were counted all the same
        own.resume()
        await holds(lambda: found(tier))


async def test_a_gateway_that_ends_writes_what_it_has_scored(redis: RedisServer) -> None:
    worker = StandIn(good)
    secret = {"cache_key_secret": SecretStr(SECRET.decode()), "redis_url": SecretStr(redis.url)}
    app = create_gateway(GatewaySettings(**secret), [worker.client])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        while (await client.get("/health/ready")).is_error:
            await asyncio.sleep(0.01)
        redis.command("CLIENT", "PAUSE", "300", "WRITE")

        assert (
            await client.post("/rerank", json={"query": "q", "documents": ["a", "b"]})
        ).status_code == 200
        assert redis.command("DBSIZE") == "0"

    assert redis.command("DBSIZE") == "2"
