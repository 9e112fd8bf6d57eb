"""`POST /score` over HTTP: the engine's scores, or an error of the service."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs
from PIL import Image

from model_store.checkpoint import resolve
from service.errors import BY_CODE
from service.observability.score_metrics import short_digest
from service.wire import (
    MSGPACK,
    TIMEOUT_HEADER,
    Pixels,
    Refused,
    ScoreCall,
    Scored,
    ScoreReply,
    WorkerInfo,
)
from service.worker.app import create_worker
from service.worker.engines.loading import create_engine
from service.worker.engines.torch.engine import TorchEngine
from service.worker.settings import WorkerSettings
from tests.conftest import TINY
from tests.worker.calls import verdicts
from tests.worker.serving import client_of, ready_worker

SETTINGS = WorkerSettings(
    model=str(TINY), device="cpu", threads=1, batch_tokens=64, max_calls=1, max_call_bytes=2**20
)


def pixels(color: str, width: int = 56, height: int = 84) -> Pixels:
    rgb = Image.new("RGB", (width, height), color).tobytes()
    return Pixels(hashlib.sha256(rgb).digest(), width, height, rgb)


IMAGES = [pixels("red"), pixels("blue", 112, 56)]
CALL = ScoreCall(
    "gmr-tiny",
    "find",
    ["a red shape"],
    [["red"], [0], ["a caption", 1], [1, "after", 0], ["red"], []],
    IMAGES,
    truncate=True,
)
SHORT = structs.replace(CALL, documents=[["red"]], images=[])
LONG = structs.replace(
    CALL,
    documents=[[f"document {number} " * (1 + number % 40)] for number in range(250)],
    images=[],
)


@pytest.fixture(scope="module")
async def worker() -> AsyncIterator[httpx.AsyncClient]:
    async with ready_worker(SETTINGS, create_engine(SETTINGS)) as client:
        yield client


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TorchEngine]:
    engine = TorchEngine(device="cpu", threads=1)
    await engine.start(resolve(str(TINY)))
    yield engine
    await engine.close()


async def send(
    worker: httpx.AsyncClient, call: object, timeout_ms: str | None = None
) -> httpx.Response:
    headers = {"content-type": MSGPACK}
    if timeout_ms:
        headers[TIMEOUT_HEADER] = timeout_ms
    content = call if isinstance(call, bytes) else msgspec.msgpack.encode(call)
    return await worker.post("/score", content=content, headers=headers)


def reply(response: httpx.Response) -> ScoreReply:
    assert (response.status_code, response.headers["content-type"]) == (200, MSGPACK), response.text
    return msgspec.msgpack.decode(response.content, type=ScoreReply)


def same(found: Scored | Refused | None, wanted: Scored | Refused) -> bool:
    if not isinstance(found, Scored) or not isinstance(wanted, Scored):
        return found == wanted
    return (
        structs.replace(found, logit=0.0) == structs.replace(wanted, logit=0.0)
        and abs(found.logit - wanted.logit) < 1e-5
    )


def is_error(response: httpx.Response, code: str) -> bool:
    return (response.status_code, response.json()["code"]) == (BY_CODE[code].status, code)


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        structs.replace(CALL, query=[1, "and", 0]),
        structs.replace(CALL, instruction=None),
        structs.replace(CALL, documents=[]),
    ],
    ids=[
        "documents of every kind",
        "a query with pictures",
        "the model's own instruction",
        "no documents",
    ],
)
async def test_a_reply_has_the_scores_of_the_engine(
    worker: httpx.AsyncClient, engine: TorchEngine, call: ScoreCall
) -> None:
    answered = reply(await send(worker, call))
    wanted = await verdicts(engine, call)
    assert len(answered.pairs) == len(call.documents)
    assert all(map(same, answered.pairs, wanted))
    assert all(isinstance(pair, Scored) for pair in answered.pairs)

    (info,) = msgspec.json.decode((await worker.get("/info")).content, type=list[WorkerInfo])
    assert (answered.digest, info.model) == (info.digest, "gmr-tiny")


async def test_a_pair_that_is_too_long_is_refused_beside_the_others(
    worker: httpx.AsyncClient, engine: TorchEngine
) -> None:
    call = structs.replace(CALL, documents=[["word " * 4000], ["red"]], images=[], truncate=False)
    first, second = reply(await send(worker, call)).pairs
    assert first == Refused("pair_too_long")
    assert isinstance(second, Scored)


def with_image(**changes: Any) -> ScoreCall:
    return structs.replace(CALL, images=[structs.replace(IMAGES[0], **changes), IMAGES[1]])


ENCODED = msgspec.msgpack.encode(CALL)
GARBLED: dict[str, object] = {
    "nothing": b"",
    "noise": b"\xc1\xff\x00",
    "json": msgspec.json.encode(SHORT),
    "half a call": ENCODED[: len(ENCODED) // 2],
    "a call and more": ENCODED + b"x",
    "a list": [],
    "no fields": {},
    "a field is missing": {
        name: value for name, value in structs.asdict(SHORT).items() if name != "truncate"
    },
    "a document is no list": structs.asdict(SHORT) | {"documents": ["red"]},
    "a part is a fraction": structs.asdict(SHORT) | {"documents": [[0.5]]},
    "a text is not UTF-8": msgspec.msgpack.encode(SHORT).replace(b"\xa3red", b"\xa3r\xff\xff"),
    "nested without end": b"\x81\xa1a" + b"\x91" * 100_000,
    "an image is not there": structs.replace(CALL, images=IMAGES[:1]),
    "an image before the first": structs.replace(CALL, documents=[[-1]]),
    "the query's image is not there": structs.replace(SHORT, query=[0]),
    "too few bytes": with_image(rgb=IMAGES[0].rgb[:-1]),
    "too many bytes": with_image(rgb=IMAGES[0].rgb + b"x"),
    "an image without area": with_image(width=0, rgb=b""),
    "negative sides": with_image(width=-56, height=-84),
    "sides that the model does not read": with_image(width=42, height=112),
}


@pytest.mark.parametrize("case", GARBLED)
async def test_a_garbled_call_is_refused(worker: httpx.AsyncClient, case: str) -> None:
    assert is_error(await send(worker, GARBLED[case]), "invalid_request")


async def test_another_model_is_not_found(worker: httpx.AsyncClient) -> None:
    assert is_error(await send(worker, structs.replace(SHORT, model="other")), "model_not_found")


async def test_a_call_that_is_too_large_is_refused(worker: httpx.AsyncClient) -> None:
    call = structs.replace(SHORT, documents=[["x" * 2**20]])
    assert is_error(await send(worker, call), "body_too_large")


async def test_a_full_worker_turns_calls_away_and_has_room_again_when_one_is_cancelled(
    worker: httpx.AsyncClient,
) -> None:
    first, second = (asyncio.create_task(send(worker, LONG)) for _ in range(2))
    await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
    turned_away, large = (first, second) if first.done() else (second, first)
    assert is_error(turned_away.result(), "overloaded")
    assert int(turned_away.result().headers["retry-after"]) >= 1

    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    assert len(reply(await send(worker, SHORT)).pairs) == 1


async def test_a_deadline_gives_what_was_scored_until_then(
    worker: httpx.AsyncClient, engine: TorchEngine
) -> None:
    milliseconds, some = 1, ScoreReply("", [], {})
    while not any(some.pairs):
        milliseconds *= 2
        some = reply(await send(worker, LONG, str(milliseconds)))

    assert None in some.pairs
    assert len(some.pairs) == len(LONG.documents)

    done = [index for index, pair in enumerate(some.pairs) if pair]
    documents = [LONG.documents[index] for index in done]
    wanted = await verdicts(engine, structs.replace(LONG, documents=documents))
    assert all(map(same, [some.pairs[index] for index in done], wanted))


@pytest.mark.parametrize("timeout", ["", "soon", "-1", "1.5", "9" * 30, "٣"])
async def test_a_timeout_that_is_no_number_of_ms_is_no_timeout(
    worker: httpx.AsyncClient, timeout: str
) -> None:
    answer = await worker.post(
        "/score",
        content=msgspec.msgpack.encode(SHORT),
        headers={TIMEOUT_HEADER.encode(): timeout.encode()},
    )
    assert isinstance(reply(answer).pairs[0], Scored)


async def test_a_worker_that_has_not_loaded_yet_is_alive_and_not_ready() -> None:
    app = create_worker(SETTINGS, create_engine(SETTINGS))
    async with client_of(app) as worker:
        for answer in (
            await send(worker, SHORT),
            await worker.get("/info"),
            await worker.get("/health/ready"),
        ):
            assert is_error(answer, "no_worker")
            assert "retry-after" in answer.headers

        assert (await worker.get("/health/live")).status_code == 200
        assert is_error(await send(worker, b"noise"), "invalid_request")


async def test_a_ready_worker_reports_its_model(worker: httpx.AsyncClient) -> None:
    assert (await worker.get("/health/ready")).json() == {"status": "ready"}
    (info,) = msgspec.json.decode((await worker.get("/info")).content, type=list[WorkerInfo])
    assert (info.model, info.family, info.device, info.dtype) == (
        "gmr-tiny",
        "gmr",
        "cpu",
        "float32",
    )
    assert info.digest.startswith("sha256:")

    metrics = (await worker.get("/metrics")).text
    assert f'digest="{short_digest(info.digest)}"' in metrics
