"""Whole processes: with any fault of Redis, the answers are those without a cache, and no request
fails."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from service.gateway.cache.redis_calls import BREAKER_FAILURES
from tests.processes import Fleet, Gmr, RedisServer, eventually, fleet

pytestmark = pytest.mark.slow

SECRET = "a secret that gateways share"
DOCUMENTS = [
    f"{shape} of {color} on a {ground} ground"
    for shape, color, ground in product(("circle", "square"), ("red", "blue"), ("grey", "white"))
]
SKIPPED = 'rerank_cache_skipped_total{operation="get",reason="circuit_open"}'
MADE = 'rerank_cache_call_duration_seconds_count{operation="get"}'


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Fleet]:
    """A worker, and a gateway without a memory tier: every cached score is from Redis."""
    with fleet(
        tmp_path_factory.mktemp("fleet"),
        1,
        RERANK_REDIS_URL=redis.url,
        RERANK_CACHE_KEY_SECRET=SECRET,
        RERANK_CACHE_MEMORY_BYTES="0",
    ) as made:
        yield made


def ask(gateway: Gmr, query: str, **more: Any) -> dict[str, Any]:
    answer = gateway.rerank(query=query, documents=DOCUMENTS, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def scores(answer: dict[str, Any]) -> list[tuple[int, float]]:
    return [(each["index"], each["logit"]) for each in answer["results"]]


def truth(gateway: Gmr, query: str) -> list[tuple[int, float]]:
    """The answer without a cache."""
    return scores(ask(gateway, query, cache="bypass"))


def cached(answer: dict[str, Any]) -> int:
    found: int = answer["meta"]["cached_pairs"]
    return found


def test_a_second_gateway_is_told_what_the_first_has_scored(
    house: Fleet, redis: RedisServer, tmp_path: Path
) -> None:
    settings = {"RERANK_REDIS_URL": redis.url, "RERANK_CACHE_KEY_SECRET": SECRET}
    with Gmr(
        "gateway", "--workers", house.workers[0].url, log=tmp_path / "second", **settings
    ) as second:
        second.await_ready()
        redis.command("FLUSHALL")
        first = ask(house.gateway, "a red circle", cache="refresh")
        eventually(lambda: redis.command("DBSIZE") == str(len(DOCUMENTS)))
        told = ask(second, "a red circle")

        assert (cached(first), cached(told)) == (0, len(DOCUMENTS))
        assert scores(told) == scores(first) == truth(house.gateway, "a red circle")
        assert all(each["meta"]["cached"] for each in told["results"])
        assert [each["meta"] | {"cached": False} for each in told["results"]] == [
            each["meta"] for each in first["results"]
        ]


def test_a_gateway_of_another_secret_is_told_nothing(
    house: Fleet, redis: RedisServer, tmp_path: Path
) -> None:
    ask(house.gateway, "a blue square")
    settings = {"RERANK_REDIS_URL": redis.url, "RERANK_CACHE_KEY_SECRET": SECRET[::-1]}
    with Gmr(
        "gateway", "--workers", house.workers[0].url, log=tmp_path / "other", **settings
    ) as other:
        assert cached(ask(other.await_ready(), "a blue square")) == 0


@contextmanager
def killed(redis: RedisServer) -> Iterator[None]:
    redis.kill()
    try:
        yield
    finally:
        redis.start()


@contextmanager
def stalled(redis: RedisServer) -> Iterator[None]:
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


@contextmanager
def full(redis: RedisServer) -> Iterator[None]:
    redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        redis.command("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def poisoned(redis: RedisServer) -> Iterator[None]:
    """Every key holds what is no score: another's value, a list, half of its own, nothing."""
    script = (
        "local keys = redis.call('KEYS', 'gmr:*') local first = redis.call('GET', keys[1]) for"
        " number, key in ipairs(keys) do redis.call('DEL', key) if number % 4 == 0 then"
        " redis.call('RPUSH', key, first) elseif number % 4 == 1 then redis.call('SET', key, '')"
        " elseif number % 4 == 2 then redis.call('SET', key, first) else redis.call('SET', key,"
        " string.sub(first, 1, 17)) end end"
    )
    redis.command("EVAL", script, "0")
    yield


@pytest.mark.parametrize("fault", [killed, stalled, full, poisoned])
def test_a_fault_changes_no_answer_and_fails_no_request(
    house: Fleet, redis: RedisServer, fault: Any
) -> None:
    gateway = house.gateway
    queries = [f"{fault.__name__} {number}" for number in range(4)]
    without = {query: truth(gateway, query) for query in queries}
    redis.command("FLUSHALL")

    def written() -> bool:
        for query in queries[:2]:
            ask(gateway, query)
        return redis.command("DBSIZE") == str(2 * len(DOCUMENTS))

    eventually(written)
    with ExitStack() as stack:
        stack.enter_context(fault(redis))
        with ThreadPoolExecutor(4) as callers:
            answers = list(
                callers.map(
                    lambda number: (queries[number % 4], ask(gateway, queries[number % 4])),
                    range(40),
                )
            )

        assert gateway.status("/health/ready") == 200

    for query, answer in answers:
        assert scores(answer) == without[query]

    def found_again() -> bool:
        answer = ask(gateway, queries[0])
        assert scores(answer) == without[queries[0]]
        return cached(answer) == len(DOCUMENTS)

    eventually(found_again)


def test_a_redis_that_is_gone_is_asked_now_and_then(house: Fleet, redis: RedisServer) -> None:
    gateway = house.gateway
    with killed(redis):
        for _ in range(BREAKER_FAILURES):
            ask(gateway, "a white ground")
        made, skipped = gateway.metric(MADE), gateway.metric(SKIPPED)
        for _ in range(60):
            ask(gateway, "a white ground")
        made, skipped = gateway.metric(MADE) - made, gateway.metric(SKIPPED) - skipped

        assert made + skipped == 60
        assert gateway.metric('rerank_cache_circuit_state{operation="get"}') > 0
        assert (
            gateway.metric('rerank_cache_failures_total{kind="connection",operation="get"}')
            >= BREAKER_FAILURES
        )


def test_a_gateway_starts_without_its_redis(house: Fleet, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as other:
        url = other.url
    settings = {"RERANK_REDIS_URL": url, "RERANK_CACHE_KEY_SECRET": SECRET}
    with Gmr(
        "gateway", "--workers", house.workers[0].url, log=tmp_path / "gateway", **settings
    ) as gateway:
        gateway.await_ready()
        first, second = ask(gateway, "a red square"), ask(gateway, "a red square")

        assert (cached(first), cached(second)) == (0, len(DOCUMENTS))  # its own memory
        assert scores(first) == scores(second)

        eventually(lambda: "does not answer" in gateway.said())


def test_a_gateway_that_would_share_a_redis_without_a_secret_does_not_start(tmp_path: Path) -> None:
    with Gmr(
        "gateway",
        "--workers",
        "http://127.0.0.1:1",
        log=tmp_path / "gateway",
        RERANK_REDIS_URL="redis://:hunter2@h",
    ) as one:
        assert one.wait() == 2
        assert one.said().startswith("RERANK_CACHE_KEY_SECRET: ")
        assert "hunter2" not in one.said()
