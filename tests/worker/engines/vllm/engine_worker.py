"""A worker with vLLM as its engine, run as a process of the environment that `make test` makes for
it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from service.wire import MSGPACK, TIMEOUT_HEADER, Refused, ScoreCall, Scored, ScoreReply, WorkerInfo
from tests.conftest import START_SECONDS, free_port, started

PYTHON = Path(__file__).parents[4] / ".venv-vllm" / "bin" / "python"
ENGINE = {
    "RERANK_ENGINE": "vllm",
    "RERANK_ENGINE_ENFORCE_EAGER": "true",
    "RERANK_ENGINE_KV_CACHE_MEMORY_BYTES": str(2**29),
    "HF_HUB_OFFLINE": "1",
}
"""vLLM without compilation, which is no part of what is tested, and with little memory."""

Pair = Scored | Refused | None


def python() -> str:
    """The interpreter that has vLLM."""
    assert PYTHON.exists(), (
        "There is no .venv-vllm, the environment with vLLM: `make test` makes it."
    )
    return str(PYTHON)


@dataclass(frozen=True)
class EngineWorker:
    """A worker that is ready, and its processes."""

    url: str
    client: httpx.AsyncClient
    process: subprocess.Popen[bytes]
    log: Path

    async def post(self, call: ScoreCall, timeout_ms: int | None = None) -> httpx.Response:
        headers = {"content-type": MSGPACK} | (
            {TIMEOUT_HEADER: str(timeout_ms)} if timeout_ms else {}
        )
        return await self.client.post(
            "/score", content=msgspec.msgpack.encode(call), headers=headers
        )

    async def ask(self, call: ScoreCall, timeout_ms: int | None = None) -> list[Pair]:
        """The verdict on each document."""
        response = await self.post(call, timeout_ms)
        assert response.status_code == httpx.codes.OK, response.text
        pairs = msgspec.msgpack.decode(response.content, type=ScoreReply).pairs
        assert len(pairs) == len(call.documents)
        return pairs

    async def served(self) -> list[WorkerInfo]:
        return msgspec.json.decode((await self.client.get("/info")).content, type=list[WorkerInfo])

    def live(self) -> bool:
        return httpx.get(f"{self.url}/health/live").status_code == httpx.codes.OK

    def descendants(self) -> set[int]:
        return descendants(self.process.pid)

    def part(self, name: str) -> int:
        """The pid of vLLM's process whose name begins so."""
        (pid,) = [pid for pid in self.descendants() if process_name(pid).startswith(name)]
        return pid


@contextmanager
def engine_worker(folder: Path, *arguments: str, **environment: str) -> Iterator[EngineWorker]:
    """`gmr worker` with vLLM, ready; its log is a file in `folder`."""
    log, port = folder / "log", free_port()
    with started(
        "worker", *arguments, port=port, log=log, python=python(), **ENGINE | environment
    ) as (url, process):
        yield EngineWorker(url, httpx.AsyncClient(base_url=url, timeout=300), process, log)


def descendants(pid: int) -> set[int]:
    """The pids of a process's children, theirs, and so on."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = children.read_text(encoding="ascii").split()
        except OSError:  # the thread has ended
            continue
        for child in map(int, pids):
            found |= {child} | descendants(child)

    return found


def process_name(pid: int) -> str:
    """A process's name; nothing where it has ended: a start forks compilers and probes that come
    and go."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail where it never does."""
    until = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def end_with(worker: EngineWorker, codes: Collection[int], processes: set[int]) -> None:
    """The worker ends by itself with one of `codes`, and none of `processes` outlives it."""
    assert worker.process.wait(START_SECONDS) in codes, worker.log.read_text(encoding="utf-8")
    assert processes
    eventually(lambda: not any(map(is_running, processes)))


def command(*arguments: str) -> list[str]:
    return [python(), "-m", "service.cli", *arguments, "--port", str(free_port())]


def environment(**changes: str) -> dict[str, str]:
    return os.environ | ENGINE | changes
