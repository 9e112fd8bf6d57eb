"""Invalid replies of a worker: another worker is tried once, then the request fails with an error
of the gateway's."""

from __future__ import annotations

import gzip
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs
from prometheus_client import REGISTRY
from starlette.responses import Response

from service.errors import (
    BY_CODE,
    DeadlineExceeded,
    ModelNotFound,
    NoWorker,
    Overloaded,
    RerankError,
    WorkerFailed,
)
from service.gateway.fleet.client import PAIR_BYTES, REPLY_BYTES
from service.observability.request_context import timed_request
from service.wire import Refused, ScoreCall, Scored, ScoreReply
from tests.gateway.stand_in import (
    CALL,
    INFO,
    Answer,
    StandIn,
    ask,
    good,
    key_for,
    monitored,
    scored,
)


def says(status: int, content: bytes) -> Answer:
    async def answer(call: ScoreCall) -> Response:
        return Response(content, status)

    return answer


def refuses(error: type[RerankError], status: int | None = None) -> Answer:
    return says(
        status or error.status,
        msgspec.json.encode({"code": error.code, "message": "words of the worker"}),
    )


def replies(*pairs: Any) -> Answer:
    return says(200, msgspec.msgpack.encode(ScoreReply(INFO.digest, list(pairs), {})))


async def compressed(call: ScoreCall) -> Response:
    body = msgspec.msgpack.encode(ScoreReply(INFO.digest, [scored(1), scored(2)], {}))
    return Response(gzip.compress(body), headers={"content-encoding": "gzip"})


def timed(seconds: float) -> bytes:
    return msgspec.msgpack.encode(
        ScoreReply(INFO.digest, [scored(1), scored(2)], {"engine": seconds})
    )


WRONG: dict[str, Answer] = {
    "an internal error": refuses(BY_CODE["internal"]),
    "a 500 of something else": says(500, b"<html>Internal Server Error</html>"),
    "a 502 without a body": says(502, b""),
    "a 503 that is no error of ours": says(503, b'["not", "ours"]'),
    "a 503 whose code is no text": says(503, b'{"code": 7}'),
    "garbage": says(200, b"\xc1\xff garbage"),
    "nothing": says(200, b""),
    "a reply that is not UTF-8": says(
        200, msgspec.msgpack.encode({"digest": "sha", "pairs": []}).replace(b"sha", b"s\xff\xff")
    ),
    "a reply nested without end": says(200, b"\x83\xa1a" + b"\x91" * 100_000),
    "an error that is not UTF-8": says(500, b'{"code": "\xff"}'),
    "a page": says(200, b"<html>welcome</html>"),
    "a reply without pairs": says(200, msgspec.msgpack.encode({"digest": "sha256:one"})),
    "half a reply": says(
        200, msgspec.msgpack.encode(ScoreReply(INFO.digest, [scored(1), scored(2)], {}))[:-3]
    ),
    "too few pairs": replies(scored(1)),
    "too many pairs": replies(scored(1), scored(2), scored(3)),
    "a logit that is no number": replies(scored(1), scored(math.nan)),
    "an infinite logit": replies(scored(-math.inf), scored(1)),
    "a logit that no model gives": replies(scored(1e39), scored(1)),
    "fewer tokens than none": replies(Scored(1.0, -1, 0, False), scored(1)),
    "more tokens reused than there are": replies(Scored(1.0, 10, 0, False, 11), scored(1)),
    "more than a reply can have": says(200, b"\x00" * (REPLY_BYTES + 2 * PAIR_BYTES + 1)),
    "a reply that is compressed": compressed,
    "an error without end": says(500, b" " * 2**20),
    "a digest that is no digest": says(
        200, msgspec.msgpack.encode(ScoreReply("x" * 129, [scored(1), scored(2)], {}))
    ),
    "a time that is no number": says(200, timed(math.nan)),
    "a time that is over before it began": says(200, timed(-1.0)),
    "more image tokens than there are": replies(Scored(1.0, 10, 11, False), scored(1)),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_answer_is_a_failed_worker(wrong: str) -> None:
    only = StandIn(WRONG[wrong])
    async with monitored(only.client) as workers:
        with pytest.raises(WorkerFailed) as raised:
            await ask(workers)
        assert raised.value.message == WorkerFailed.message
    assert len(only.calls) == 1


@pytest.mark.parametrize("wrong", WRONG)
async def test_after_a_wrong_answer_another_worker_is_asked(wrong: str) -> None:
    bad, other = StandIn(WRONG[wrong]), StandIn(good)
    async with monitored(bad.client, other.client) as workers:
        assert (await ask(workers, key=key_for(bad.client, other.client))).pairs == [
            scored(0),
            scored(1),
        ]
    assert (len(bad.calls), len(other.calls)) == (1, 1)


@pytest.mark.parametrize("error", [Overloaded, NoWorker])
async def test_a_worker_without_room_is_said_so_after_one_other_was_asked(
    error: type[RerankError],
) -> None:
    stand_ins = [StandIn(refuses(error)) for _ in range(3)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        with pytest.raises(error) as raised:
            await ask(workers)
        assert raised.value.message == error.message
    assert sum(len(each.calls) for each in stand_ins) == 2


async def test_a_call_is_offered_to_two_workers_at_most() -> None:
    stand_ins = [StandIn(WRONG["garbage"]) for _ in range(4)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        with pytest.raises(WorkerFailed):
            await ask(workers)
    assert sorted(len(each.calls) for each in stand_ins) == [0, 0, 1, 1]


FINAL = {
    "the model is not served": (refuses(ModelNotFound), ModelNotFound),
    "the call cannot be read": (refuses(BY_CODE["invalid_request"]), WorkerFailed),
    "the call is too large": (refuses(BY_CODE["body_too_large"]), WorkerFailed),
    "a 404 of something else": (says(404, b"<html>"), WorkerFailed),
    "out of time": (refuses(DeadlineExceeded), DeadlineExceeded),
}


@pytest.mark.parametrize("case", FINAL)
async def test_what_another_worker_would_refuse_too_is_not_sent_there(case: str) -> None:
    answer, error = FINAL[case]
    stand_ins = [StandIn(answer), StandIn(answer)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        with pytest.raises(error):
            await ask(workers)

    assert sum(len(each.calls) for each in stand_ins) == 1


async def test_refused_and_open_pairs_are_handed_on() -> None:
    only = StandIn(replies(Refused("pair_too_long"), None))
    async with monitored(only.client) as workers:
        assert (await ask(workers)).pairs == [Refused("pair_too_long"), None]


async def test_the_largest_reply_there_can_be_is_read() -> None:
    many = structs.replace(CALL, documents=[["a"]] * 1_000)
    largest = Scored(-1.123456789e29, 2**32 - 1, 2**32 - 1, truncated=True, reused_tokens=2**32 - 1)
    code = max(BY_CODE, key=len)
    for pairs in ([largest] * 1_000, [Refused(code)] * 1_000):
        async with monitored(StandIn(replies(*pairs)).client) as workers:
            assert (await ask(workers, call=many)).pairs == pairs


async def test_no_more_than_a_reply_can_have_is_read_of_one_without_end() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 2**14
            yield b"\x00" * 2**14

    async def said() -> AsyncIterator[bytes]:
        yield msgspec.json.encode([INFO])

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=said() if request.url.path == "/info" else endless())

    async with monitored(
        httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://w")
    ) as workers:
        with pytest.raises(WorkerFailed):
            await ask(workers)

    assert sent <= REPLY_BYTES + 2 * PAIR_BYTES + 2 * 2**14


async def test_a_worker_names_no_metrics() -> None:
    body = msgspec.msgpack.encode(
        ScoreReply(INFO.digest, [scored(1), scored(2)], {"engine": 0.5, "made-up": 1.0})
    )
    async with monitored(StandIn(says(200, body)).client) as workers:
        with timed_request("r") as record:
            await ask(workers)
    assert record.worker_stages == {"queue": 0.0, "engine": 0.5}
    assert (
        REGISTRY.get_sample_value("rerank_stage_duration_seconds_count", {"stage": "made-up"})
        is None
    )


def test_a_refusal_is_understood_between_versions_with_and_without_a_part() -> None:
    class RefusedBefore(msgspec.Struct, array_like=True, tag=1, frozen=True):
        code: str

    sent = msgspec.msgpack.encode(Refused("pair_too_long", "query"))
    assert msgspec.msgpack.decode(sent, type=RefusedBefore) == RefusedBefore("pair_too_long")
    assert msgspec.msgpack.decode(
        msgspec.msgpack.encode(RefusedBefore("pair_too_long")), type=Refused
    ) == Refused("pair_too_long")
