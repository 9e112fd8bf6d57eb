"""A worker is alive while its work makes progress, whether or not it answers and a caller waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import torch

from model_store.checkpoint import Checkpoint
from service.wire import ScoreCall, ScoreReply
from service.worker.app import create_worker
from service.worker.engines.progress import Progress
from service.worker.engines.torch.decoder_network import DecoderNetwork
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


def test_a_piece_that_goes_on_is_progress() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.begin()
    for _ in range(9):
        clock.now += 5
        progress.advance()
        assert progress.stalled_seconds() == 0
    clock.now += 5
    assert progress.stalled_seconds() == 5


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


class Gate:
    """Holds forward passes back while `free` is not set."""

    def __init__(self) -> None:
        self.free, self.waiting = threading.Event(), threading.Event()
        self.free.set()

    def load_network(
        self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> DecoderNetwork:
        return GatedNetwork(checkpoint, device, dtype, self)

    def wait(self) -> None:
        self.waiting.set()
        self.free.wait()
        self.waiting.clear()


class GatedNetwork(DecoderNetwork):
    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, gate: Gate
    ) -> None:
        super().__init__(checkpoint, device, dtype)
        self._gate = gate

    def score(self, *args: Any, **kwargs: Any) -> list[float]:
        self._gate.wait()
        return super().score(*args, **kwargs)


class Running:
    """A worker in this process, its client, and the gate of its engine."""

    def __init__(self, gate: Gate, client: httpx.AsyncClient) -> None:
        self.gate = gate
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
    gate = Gate()
    engine = TorchEngine(device="cpu", threads=1, stall_seconds=1, load_network=gate.load_network)
    app = create_worker(WorkerSettings(), engine)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker")
    async with client, app.router.lifespan_context(app):
        running = Running(gate, client)
        try:
            await running.becomes(200, "/health/ready")
            yield running
        finally:
            gate.free.set()


async def test_a_stuck_forward_pass_ends_health_until_it_is_over(worker: Running) -> None:
    worker.gate.free.clear()
    asked = asyncio.create_task(worker.score())
    await worker.becomes(503)
    assert [await worker.status(path) for path in ("/health/ready", "/info")] == [503, 503]
    assert not asked.done()

    worker.gate.free.set()
    assert all((await asked).pairs)
    assert [await worker.status(path) for path in ("/health/live", "/health/ready", "/info")] == [
        200,
        200,
        200,
    ]


async def test_it_is_stuck_although_nobody_waits_any_more(worker: Running) -> None:
    worker.gate.free.clear()
    asked = asyncio.create_task(worker.score())
    await asyncio.to_thread(worker.gate.waiting.wait)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await worker.becomes(503)
    worker.gate.free.set()
    await worker.becomes(200)

    assert all((await worker.score()).pairs)


async def test_a_worker_without_work_stays_alive(worker: Running) -> None:
    assert all((await worker.score()).pairs)
    await asyncio.sleep(1.2)  # longer than work may take
    assert await worker.status("/health/live") == 200
