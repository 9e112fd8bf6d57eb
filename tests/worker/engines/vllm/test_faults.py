"""An engine that dies ends its worker, soon and completely; one that pauses makes the worker
unhealthy until it continues."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from msgspec import structs

from model_store.training.precision import choose_precision
from service.errors import NoWorker
from service.wire import ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from tests.worker.calls import as_call, cell_call, verdicts
from tests.worker.engines.vllm.agreement import same
from tests.worker.engines.vllm.engine_worker import (
    EngineWorker,
    command,
    descendants,
    end_with,
    engine_worker,
    environment,
    eventually,
    process_name,
)

pytestmark = pytest.mark.slow

ENGINE, INNER = "VLLM::Engine", "VLLM::Worker"
FAILED, TOLD_TO = (1,), (0,)
"""Exit codes."""
FLAT = {"code", "message", "detail", "request_id"}


def long_call(seed: str, documents: int = 1000) -> ScoreCall:
    return as_call(
        "find", (f"lists {seed}",), [(f"{seed} {number} " * 40,) for number in range(documents)]
    )


def is_no_worker(answer: httpx.Response) -> bool:
    body = answer.json()
    assert body.keys() == FLAT
    return (answer.status_code, body["code"]) == (NoWorker.status, NoWorker.code)


async def begun(worker: EngineWorker, call: ScoreCall) -> asyncio.Task[httpx.Response]:
    """A long call that is being worked on: a short one that came later has been answered."""
    task = asyncio.create_task(worker.post(call))
    await asyncio.sleep(0.2)
    assert len(await worker.ask(cell_call("T-T", "overtakes", 1))) == 2
    assert not task.done()
    return task


async def stopped_with_work(
    worker: EngineWorker, pid: int, *calls: ScoreCall
) -> list[asyncio.Task[httpx.Response]]:
    """The engine, stopped, with calls that wait for it until the worker no longer counts as
    alive."""
    os.kill(pid, signal.SIGSTOP)
    asking = [asyncio.create_task(worker.post(call)) for call in calls]
    await asyncio.to_thread(eventually, lambda: not worker.live())
    assert is_no_worker(await worker.client.get("/health/ready"))
    assert is_no_worker(await worker.client.get("/info"))
    assert not any(task.done() for task in asking)
    return asking


async def test_an_engine_that_pauses_and_then_dies(tmp_path: Path, oracle: TorchEngine) -> None:
    texts, images = cell_call("T-T", "pause"), cell_call("I-I", "pause")
    with engine_worker(tmp_path, RERANK_STALL_SECONDS="2") as worker:
        engine, processes = worker.part(ENGINE), worker.descendants()
        assert worker.live()
        asking = await stopped_with_work(worker, engine, texts, images)
        os.kill(engine, signal.SIGCONT)
        for task, call in zip(asking, (texts, images), strict=True):
            assert (await task).status_code == httpx.codes.OK
            assert all(map(same, await worker.ask(call), await verdicts(oracle, call)))
        await asyncio.to_thread(eventually, worker.live)

        unseen = cell_call("IT-I", "unseen"), structs.replace(texts, cache_salt="unseen")
        asking = await stopped_with_work(worker, engine, *unseen)
        os.kill(engine, signal.SIGKILL)
        for task in asking:
            assert is_no_worker(await asyncio.wait_for(task, 60))
        end_with(worker, FAILED, processes)


async def test_the_engines_own_worker_dies_mid_batch(tmp_path: Path) -> None:
    """The worker runs on random weights, as for sizing, and logs a warning of it."""
    with engine_worker(tmp_path, RERANK_ENGINE_LOAD_FORMAT="dummy") as worker:
        (warning,) = [
            line
            for line in logged(worker.log.read_text(encoding="utf-8"), "warning")
            if "weights" in line
        ]
        assert warning == "the weights are random: timings mean something, scores do not"

        processes = worker.descendants()
        asking = await begun(worker, long_call("inner"))
        os.kill(worker.part(INNER), signal.SIGKILL)
        assert is_no_worker(await asyncio.wait_for(asking, 60))

        end_with(worker, FAILED, processes)
        assert "the engine has ended" in logged(worker.log.read_text(encoding="utf-8"), "error")


async def test_a_worker_that_is_told_to_end_finishes_its_calls_first(
    tmp_path: Path, oracle: TorchEngine
) -> None:
    """The engine runs in bfloat16, and its golden pairs are within the tolerance."""
    with engine_worker(
        tmp_path, RERANK_ENGINE_DTYPE="bfloat16", RERANK_GRACE_SECONDS="600"
    ) as worker:
        (info,) = await worker.served()
        assert info.dtype == "bfloat16"
        call = cell_call("IT-IT", "bfloat16")
        found, wanted = await worker.ask(call), await verdicts(oracle, call)
        for one, other in zip(found, wanted, strict=True):
            assert isinstance(one, Scored)
            assert isinstance(other, Scored)
            assert one.logit == pytest.approx(other.logit, abs=0.5)

        processes = worker.descendants()
        # a CPU without instructions for bfloat16 takes thirty times as long for each
        chosen, _ = choose_precision("auto", "cpu")
        call = long_call("drained", documents=1000 if chosen == "bf16" else 40)
        asking = await begun(worker, call)
        worker.process.send_signal(signal.SIGTERM)
        assert (await asking).status_code == httpx.codes.OK
        end_with(worker, TOLD_TO, processes)


def test_a_worker_that_is_told_to_end_while_it_loads(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command("worker"), env=environment(), stdout=log, stderr=subprocess.STDOUT
        )

    eventually(
        lambda: any(process_name(pid).startswith(ENGINE) for pid in descendants(process.pid))
    )
    processes = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    worker = EngineWorker("", httpx.AsyncClient(), process, tmp_path / "log")
    end_with(worker, TOLD_TO, processes)


def logged(text: str, level: str) -> list[str]:
    """The worker's own messages of a level; vLLM's lines are not JSON."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line["message"] for line in lines if line["level"] == level]
