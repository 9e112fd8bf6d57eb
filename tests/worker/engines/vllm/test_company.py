"""A call gets its scores beside other calls, callers that leave, and deadlines that expire."""

from __future__ import annotations

import asyncio

import httpx
import msgspec
import pytest
from msgspec import structs

from service.wire import MSGPACK, ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from tests.worker.calls import as_call, cell_call, verdicts
from tests.worker.engines.vllm.agreement import TOLERANCE, agree, drift, logit, same
from tests.worker.engines.vllm.conftest import MAX_CALLS
from tests.worker.engines.vllm.engine_worker import EngineWorker

pytestmark = pytest.mark.slow


def long_call(documents: int, seed: str) -> ScoreCall:
    return as_call(
        "find",
        (f"lists {seed}",),
        [(f"{seed} {number} " * (10 + number % 40),) for number in range(documents)],
    )


async def test_eight_callers_of_every_kind_get_what_each_gets_alone(
    worker: EngineWorker, oracle: TorchEngine
) -> None:
    kinds = ("T-T", "I-I", "T-I", "I-T", "IT-T", "IT-IT", "T-VD")
    calls = [*(cell_call(kind, f"company/{kind}", 12) for kind in kinds), long_call(40, "company")]
    found = await asyncio.gather(*map(worker.ask, calls))
    for call, pairs in zip(calls, found, strict=True):
        wanted = await verdicts(oracle, call)
        assert all(map(same, pairs, wanted))
        assert drift(await worker.ask(call), pairs) < TOLERANCE


async def is_idle(worker: EngineWorker, oracle: TorchEngine) -> bool:
    """No call is stuck: as many as the worker takes at once are taken, and answered rightly."""
    calls = [cell_call("IT-IT", f"after/{number}", 2) for number in range(MAX_CALLS)]
    answers = await asyncio.gather(*(worker.ask(call) for call in calls))
    for call, pairs in zip(calls[:3], answers, strict=False):
        assert all(map(same, pairs, await verdicts(oracle, call)))
    return True


async def test_callers_that_leave_leave_nothing_behind(
    cached: EngineWorker, oracle: TorchEngine
) -> None:
    before = cached.descendants()
    kinds = ("T-T", "T-I", "I-I", "IT-IT")
    for storm in range(3):
        calls = [
            (
                long_call(200, f"storm {storm}")
                if number % 2
                else cell_call(kinds[number % 4], f"storm/{storm}/{number}", 30)
            )
            for number in range(MAX_CALLS)
        ]
        asking = [asyncio.create_task(cached.post(call)) for call in calls]
        for task in asking:
            await asyncio.sleep(0.03)
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    await no_call_is_left(cached)
    assert await is_idle(cached, oracle)
    assert cached.descendants() == before


async def no_call_is_left(worker: EngineWorker) -> None:
    """Wait until the calls of callers that have left no longer count against the limit."""
    short = cell_call("T-T", "short", 1)
    while True:
        answers = await asyncio.gather(*(worker.post(short) for _ in range(MAX_CALLS)))
        if all(answer.status_code == httpx.codes.OK for answer in answers):
            return
        assert all(
            answer.json()["code"] == "overloaded"
            for answer in answers
            if answer.status_code != httpx.codes.OK
        )


async def test_a_deadline_gives_what_was_scored_until_then(
    cached: EngineWorker, oracle: TorchEngine
) -> None:
    milliseconds, partial = 8, 0
    while not partial:
        call = long_call(600, f"deadline {milliseconds}")
        pairs = await cached.ask(call, milliseconds)
        done = [index for index, pair in enumerate(pairs) if pair]
        partial = len(done) if len(done) < len(pairs) else 0
        milliseconds *= 2

    first = done[:60]
    wanted = await verdicts(
        oracle, structs.replace(call, documents=[call.documents[index] for index in first])
    )

    assert all(same(pairs[index], pair) for index, pair in zip(first, wanted, strict=True))
    assert await is_idle(cached, oracle)
    assert all(isinstance(pair, Scored) for pair in await cached.ask(call))


async def test_a_short_call_overtakes_a_long_one(cached: EngineWorker, oracle: TorchEngine) -> None:
    answered: list[str] = []

    async def ask(name: str, call: ScoreCall) -> None:
        pairs = await cached.ask(call)
        assert all(isinstance(pair, Scored) for pair in pairs)
        answered.append(name)

    long = asyncio.create_task(ask("long", long_call(1000, "long")))
    await asyncio.sleep(0.5)
    short = long_call(10, "short")
    await ask("short", short)
    await ask("short again", short)
    await long

    assert answered == ["short", "short again", "long"]
    assert await agree(cached, oracle, short)


async def test_a_caller_that_hangs_up_while_it_sends_is_forgotten(
    cached: EngineWorker, oracle: TorchEngine
) -> None:
    body = msgspec.msgpack.encode(long_call(100, "cut short"))
    host, port = httpx.URL(cached.url).host, httpx.URL(cached.url).port
    for _ in range(3):
        _, writer = await asyncio.open_connection(host, port)
        head = (
            f"POST /score HTTP/1.1\r\nhost: w\r\ncontent-type: {MSGPACK}\r\ncontent-length:"
            f" {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body[: len(body) // 2])
        await writer.drain()
        writer.close()

    assert logit((await cached.ask(long_call(1, "cut short")))[0]) == pytest.approx(
        logit((await verdicts(oracle, long_call(1, "cut short")))[0]), abs=TOLERANCE
    )
