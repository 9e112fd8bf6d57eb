"""A worker is alive while work gets on: not because it answers, and not only while somebody
waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import msgspec
import pytest

from model_store.checkpoint import Adapter, Checkpoint
from service.wire import ScoreCall, ScoreReply, WorkerInfo
from service.worker.app import create_worker
from service.worker.engines.base import Progress
from service.worker.engines.torch.engine import TorchEngine
from service.worker.settings import WorkerSettings

CALL = ScoreCall(
    "gmr-tiny", "find", ["sort a list"], [["sort"], ["close a file"]], [], truncate=True
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_time_without_work_is_no_stall() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now += 100
    assert progress.stalled_seconds() == 0
    progress.begin()
    assert progress.stalled_seconds() == 0
    clock.now += 5
    assert progress.stalled_seconds() == 5
    progress.end()
    clock.now += 100
    assert progress.stalled_seconds() == 0


def test_whatever_ends_is_progress_for_all() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.begin()
    progress.begin()
    clock.now += 5
    progress.end()
    assert progress.stalled_seconds() == 0
    clock.now += 7
    assert progress.stalled_seconds() == 7


def test_what_was_never_begun_is_no_progress() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.begin()
    progress.begin()
    clock.now += 5
    progress.end(done=False)
    assert progress.stalled_seconds() == 5


def test_callers_who_give_up_early_add_up_until_something_is_done() -> None:
    clock = Clock()
    progress = Progress(clock)
    for _ in range(3):
        progress.begin()
        clock.now += 5
        progress.end(done=False)
        clock.now += 100
    assert progress.stalled_seconds() == 15
    progress.begin()
    clock.now += 1
    assert progress.stalled_seconds() == 16
    progress.end()
    assert progress.stalled_seconds() == 0


class Stuck(TorchEngine):
    """A real engine whose forward passes wait for `free`."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self.free, self.waits = threading.Event(), threading.Event()
        self.free.set()

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        served = await super().start(checkpoint, adapters)
        forward = self._network.score

        def waiting(*args: Any, **kwargs: Any) -> list[float]:
            self.waits.set()
            self.free.wait()
            self.waits.clear()
            return forward(*args, **kwargs)

        self._network.score = waiting  # type: ignore[method-assign]
        return served


class Running:
    """A worker in this process, and how it is asked."""

    def __init__(self, engine: Stuck, client: httpx.AsyncClient) -> None:
        self.engine = engine
        self.client = client

    async def status(self, path: str) -> int:
        return (await self.client.get(path)).status_code

    async def score(self) -> ScoreReply:
        answer = await self.client.post(
            "/score", content=msgspec.msgpack.encode(CALL), timeout=None
        )
        return msgspec.msgpack.decode(answer.content, type=ScoreReply)

    async def becomes(self, status: int, path: str = "/health/live") -> None:
        async with asyncio.timeout(120):
            while await self.status(path) != status:
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
async def worker() -> AsyncIterator[Running]:
    settings = WorkerSettings(device="cpu", threads=1, stall_seconds=1)
    engine = Stuck(settings)
    app = create_worker(settings, engine)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker")
    async with client, app.router.lifespan_context(app):
        running = Running(engine, client)
        try:
            await running.becomes(200, "/health/ready")
            yield running
        finally:
            engine.free.set()


async def test_a_stuck_forward_pass_ends_health_until_it_is_over(worker: Running) -> None:
    worker.engine.free.clear()
    asked = asyncio.create_task(worker.score())
    await worker.becomes(503)
    assert [await worker.status(path) for path in ("/health/ready", "/info")] == [503, 503]
    assert not asked.done()
    worker.engine.free.set()
    assert all((await asked).pairs)
    assert [await worker.status(path) for path in ("/health/live", "/health/ready", "/info")] == [
        200,
        200,
        200,
    ]


async def test_it_is_stuck_although_nobody_waits_any_more(worker: Running) -> None:
    worker.engine.free.clear()
    asked = asyncio.create_task(worker.score())
    await asyncio.to_thread(worker.engine.waits.wait)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await worker.becomes(503)
    worker.engine.free.set()
    await worker.becomes(200)
    assert all((await worker.score()).pairs)


async def test_a_worker_without_work_stays_alive(worker: Running) -> None:
    assert all((await worker.score()).pairs)
    await asyncio.sleep(1.2)  # longer than work may take
    assert await worker.status("/health/live") == 200
