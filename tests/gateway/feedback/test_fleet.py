"""Feedback that reaches another gateway than the one that answered: records in a Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from service.gateway.cache.opening import cache_secret
from service.gateway.cache.redis_client import open_client
from service.gateway.cache.redis_url import read_address
from service.gateway.feedback.record import AnswerRecord, RecordedResult, RecordKeys, encoded
from service.gateway.settings import GatewaySettings
from tests.gateway.feedback.giving import answer, clicks, lines
from tests.gateway.images.storing import gateway
from tests.processes import RedisServer


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def sharing(redis: RedisServer, folder: Path, secret: str = "s" * 16) -> dict[str, Any]:
    return {
        "redis_url": SecretStr(redis.url),
        "cache_key_secret": SecretStr(secret),
        "feedback_folder": folder,
    }


async def test_every_gateway_takes_feedback_on_the_answers_of_all(
    redis: RedisServer, tmp_path: Path
) -> None:
    folder = tmp_path / "f"
    shared = sharing(redis, folder)
    async with gateway(tmp_path, **shared) as one, gateway(tmp_path, **shared) as other:
        await answer(one["one"], "asked")
        await answer(one["one"], "gone")
        async with asyncio.timeout(60):  # the record is written behind the answer
            while (taken := await clicks(other["one"], "asked", 0)).status_code == 404:
                pass
        assert taken.json()["accepted"] == 1
        assert (await clicks(one["one"], "asked", 0, 1)).json()["accepted"] == 2
        assert (await clicks(other["other"], "asked", 0)).status_code == 404

        assert (await other["one"].delete("/v1/feedback/gone")).is_success
        assert (await clicks(other["one"], "gone", 0)).status_code == 404
    assert len({line["answer"] for line in lines(folder, "answer")}) == 1
    assert len(lines(folder, "answer")) == 2  # one of each process: each file can be read alone
    assert len(list((folder / "events").iterdir())) == 3  # and one of what is to be forgotten


async def test_an_answer_of_a_clock_that_is_ahead_is_forgotten(
    redis: RedisServer, tmp_path: Path
) -> None:
    shared = sharing(redis, tmp_path / "f")
    keys = RecordKeys(cache_secret(GatewaySettings(**shared)))
    key, at = keys.key("tenant:one", "ahead"), time.time() + 1_000
    results = [RecordedResult(0, None, bytes(16), 0.5)]
    record = AnswerRecord(bytes(8), "ahead", "one", at, "m", "d", None, bytes(16), results)
    async with open_client(read_address(redis.url), connections=1) as client:
        await client.set(b"gmr:feedback:" + key, keys.sealed(key, encoded(record)))

    async with gateway(tmp_path, **shared) as clients:
        assert (await clicks(clients["one"], "ahead", 0)).status_code == 202
        assert (await clients["one"].delete("/v1/feedback/ahead")).is_success
    (forgotten,) = lines(tmp_path / "f", "forget")
    assert forgotten["at"] == lines(tmp_path / "f", "answer")[0]["at"]


async def test_a_record_of_another_secret_or_writer_is_none(
    redis: RedisServer, tmp_path: Path
) -> None:
    shared = sharing(redis, tmp_path / "f")
    others = sharing(redis, tmp_path / "g", secret="t" * 16)
    async with gateway(tmp_path, **shared) as one, gateway(tmp_path, **others) as stranger:
        await answer(one["one"], "mine")
        assert (await clicks(one["one"], "mine", 0)).status_code == 202
        assert (await clicks(stranger["one"], "mine", 0)).status_code == 404

    async with (
        gateway(tmp_path, **shared) as restarted,
        open_client(read_address(redis.url), connections=1) as client,
    ):
        for key in await client.keys("gmr:feedback:*"):
            value = await client.get(key)
            assert isinstance(value, bytes)
            await client.set(key, value[:-1] + bytes([value[-1] ^ 1]))
        assert (await clicks(restarted["one"], "mine", 0)).status_code == 404


async def test_a_redis_that_is_away_is_no_404(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        shared = sharing(server, tmp_path / "f")
        async with gateway(tmp_path, **shared) as clients:
            server.kill()
            order = await answer(clients["one"], "here")
            assert (await clicks(clients["one"], "here", order[0])).status_code == 202
            refused = await clicks(clients["one"], "elsewhere", 0)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            kept = await clients["one"].delete("/v1/feedback/here")
            assert (kept.status_code, kept.json()["code"]) == (503, "overloaded")
        assert [line["request_id"] for line in lines(tmp_path / "f", "forget")] == ["here"]
