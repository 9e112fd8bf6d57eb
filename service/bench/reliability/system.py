"""What faults are done to: a gateway, two workers and a Redis, each a program of its own.

Knows how they are started and how they are harmed, nothing of what is measured. Invariant: the
score cache is Redis alone, so that every request meets it.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import Program, started
from service.bench.starting import inherited

WORKERS = 2
_STOP_SECONDS = 30


@dataclass(slots=True)
class Part:
    """One program of the system, which can be killed and started again at its address."""

    role: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    stack: ExitStack
    url: str
    program: Program

    def kill(self) -> None:
        """End it as a crash does."""
        self.program.process.kill()
        self.program.process.wait(_STOP_SECONDS)

    def restart(self) -> None:
        """Start it again, without waiting for it."""
        self.program = self.stack.enter_context(
            started(self.role, self.command, self.environment, self.log)
        )


@dataclass(frozen=True, slots=True)
class System:
    """The gateway, its workers, and their Redis."""

    gateway: Part
    workers: list[Part]
    redis: Part

    def redis_says(self, *words: str) -> str:
        """What Redis answers to a command."""
        asked = ["redis-cli", "-p", calls.port_of(self.redis.url), *words]
        return subprocess.run(
            asked, capture_output=True, text=True, timeout=_STOP_SECONDS, check=False
        ).stdout.strip()

    def ready_workers(self) -> int:
        return sum(_ready(worker.url) for worker in self.workers)

    def await_ready(self) -> None:
        """Wait until every part is."""
        for part in (*self.workers, self.gateway):
            part.program.await_ready(lambda url=part.url: _ready(url))  # type: ignore[misc]
        self.redis.program.await_ready(lambda: self.redis_says("PING") == "PONG")


@contextmanager
def system(plan: Plan, checkpoint: Checkpoint) -> Iterator[System]:
    """A system that is ready; raises `BenchRefused` where there is no Redis, `ProgramFailed` where
    something does not start."""
    if not shutil.which("redis-server"):
        raise BenchRefused("gmr bench --faults needs redis-server.")
    python = plan.python_vllm if plan.engine == "vllm" else sys.executable
    quiet = inherited() | {"RERANK_LOG_LEVEL": "warning"}
    alone = quiet | {
        "RERANK_MODEL": str(checkpoint.folder),
        "RERANK_ENGINE": plan.engine,
        "RERANK_DEVICE": plan.device,
        "RERANK_THREADS": "1",
    }
    with tempfile.TemporaryDirectory(prefix="gmr-faults-") as folder, ExitStack() as stack:
        scratch = Path(folder)

        def part(name: str, command: list[str], environment: dict[str, str], url: str) -> Part:
            log = scratch / name
            program = stack.enter_context(started(name, command, environment, log))
            return Part(name, command, environment, log, stack, url, program)

        def gmr(name: str, interpreter: str, *words: str, settings: dict[str, str]) -> Part:
            url = calls.free_url()
            return part(
                name,
                [interpreter, "-m", "service.cli", *words, "--port", calls.port_of(url)],
                settings,
                url,
            )

        redis_url = calls.free_url()
        options = [
            "--port",
            calls.port_of(redis_url),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
        ]
        redis = part("redis", ["redis-server", *options], quiet, redis_url)
        workers = [
            gmr(f"worker-{number}", python, "worker", settings=alone) for number in range(WORKERS)
        ]
        shared = quiet | {
            "RERANK_WORKERS": ",".join(worker.url for worker in workers),
            "RERANK_REDIS_URL": redis_url.replace("http:", "redis:"),
            "RERANK_CACHE_KEY_SECRET": secrets.token_hex(16),
            "RERANK_CACHE_MEMORY_BYTES": "0",
        }
        whole = System(gmr("gateway", sys.executable, "gateway", settings=shared), workers, redis)
        whole.await_ready()
        yield whole


def _ready(url: str) -> bool:
    try:
        return calls.answers(url, "/health/ready")
    except (OSError, calls.CallFailed):
        return False
