"""The system that faults are injected into: a gateway, two workers and a Redis, each a program of
its own.

Depends on the commands that start them, on no measurement. Invariant: the score cache is Redis
alone, so that every request uses it.
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
from functools import partial
from pathlib import Path

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import Program, started
from service.bench.service import gmr, inherited_environment, is_ready

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
        """Start it again, without waiting until it is ready."""
        self.program = self.stack.enter_context(
            started(self.role, self.command, self.environment, self.log)
        )


@dataclass(frozen=True, slots=True)
class System:
    """The gateway, its workers, and their Redis."""

    gateway: Part
    workers: list[Part]
    redis: Part

    def redis_command(self, *words: str) -> str:
        """Redis's answer to a command."""
        line = ["redis-cli", "-p", calls.port_of(self.redis.url), *words]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=_STOP_SECONDS, check=False
        )
        return done.stdout.strip()

    def await_ready(self) -> None:
        """Wait until every part is ready."""
        for part in (*self.workers, self.gateway):
            part.program.await_ready(partial(_answers_ready, part.url))
        self.redis.program.await_ready(lambda: self.redis_command("PING") == "PONG")


@contextmanager
def running_system(plan: Plan, checkpoint: Checkpoint) -> Iterator[System]:
    """A system that is ready; raises `BenchRefused` where there is no Redis, `ProgramFailed` where
    a part does not start."""
    if not shutil.which("redis-server"):
        raise BenchRefused("gmr bench --faults needs redis-server.")

    common = inherited_environment() | {"RERANK_LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory(prefix="gmr-faults-") as folder, ExitStack() as stack:
        scratch = Path(folder)

        def start(role: str, command: list[str], environment: dict[str, str], url: str) -> Part:
            log = scratch / role
            program = stack.enter_context(started(role, command, environment, log))
            return Part(role, command, environment, log, stack, url, program)

        redis_url = calls.free_url()
        redis = start("redis", _redis_command(redis_url, folder), common, redis_url)

        python = plan.python_vllm if plan.engine == "vllm" else sys.executable
        worker_environment = common | {
            "RERANK_MODEL": str(checkpoint.folder),
            "RERANK_ENGINE": plan.engine,
            "RERANK_DEVICE": plan.device,
            "RERANK_THREADS": "1",
        }
        workers = []
        for number in range(WORKERS):
            url = calls.free_url()
            command = gmr(python, "worker", url=url)
            workers.append(start(f"worker-{number}", command, worker_environment, url))

        gateway_environment = common | {
            "RERANK_WORKERS": ",".join(worker.url for worker in workers),
            "RERANK_REDIS_URL": redis_url.replace("http:", "redis:"),
            "RERANK_CACHE_KEY_SECRET": secrets.token_hex(16),
            "RERANK_CACHE_MEMORY_BYTES": "0",
        }
        url = calls.free_url()
        command = gmr(sys.executable, "gateway", url=url)
        gateway = start("gateway", command, gateway_environment, url)

        system = System(gateway, workers, redis)
        system.await_ready()
        yield system


def _redis_command(url: str, folder: str) -> list[str]:
    """A Redis on loopback that writes no snapshots."""
    command = ["redis-server", "--port", calls.port_of(url), "--bind", "127.0.0.1"]
    return [*command, "--save", "", "--dir", folder]


def _answers_ready(url: str) -> bool:
    try:
        return is_ready(url)
    except (OSError, calls.CallFailed):
        return False
