"""The service under test: a gateway in front of its workers, each a program of its own.

Depends on the `gmr` command line and on `RERANK_*` variables, on nothing inside the service.
Invariant: all programs are ready when they are handed over, and the caller's stack stops them.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.plan import ENGINE_PREFIX, Plan
from service.bench.programs import Program, started

DECODERS = "decoders"
"""Role of a gateway's child processes, which decode images."""
_MPS = "nvidia-cuda-mps-control"
_TIMEOUT_MS = "600000"
"""No deadline of a slow contender: deadlines are not measured here."""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A gateway at `url` and its workers, the first one at `worker_url`."""

    gateway: Program
    workers: list[Program]
    url: str
    worker_url: str

    @property
    def programs(self) -> list[Program]:
        """All programs, the outer one first."""
        return [self.gateway, *self.workers]


def start_service(
    plan: Plan,
    checkpoint: Checkpoint,
    engine: str,
    scratch: Path,
    stack: ExitStack,
    **settings: str,
) -> RunningService:
    """Start a gateway and its workers, wait until they are ready, and have `stack` stop them.

    `settings` are `RERANK_*` variables of both. Raises `ProgramFailed`.
    """
    environment = service_environment(plan, checkpoint, engine) | settings
    environment |= start_mps(plan, scratch, stack)
    python = plan.python_vllm if engine == "vllm" else sys.executable
    urls, workers = [], []
    for number in range(plan.workers):
        worker_url = calls.free_url()
        log = scratch / ("worker.log" if number == 0 else f"worker-{number}.log")
        command = gmr(python, "worker", url=worker_url)
        worker = stack.enter_context(started("worker", command, environment, log))
        worker.await_ready(partial(is_ready, worker_url))
        urls.append(worker_url)
        workers.append(worker)

    url = calls.free_url()
    gateway = stack.enter_context(
        started(
            "gateway",
            gmr(sys.executable, "gateway", "--workers", ",".join(urls), url=url),
            environment,
            scratch / "gateway.log",
            children=DECODERS,
        )
    )
    gateway.await_ready(lambda: is_ready(url))
    return RunningService(gateway, workers, url, urls[0])


def has_mps() -> bool:
    """True if CUDA's Multi-Process Service is installed, by which several processes compute on one
    GPU at the same time."""
    return shutil.which(_MPS) is not None


def start_mps(plan: Plan, scratch: Path, stack: ExitStack) -> dict[str, str]:
    """Start CUDA's Multi-Process Service for several workers on a GPU, where it is installed, and
    have `stack` stop it; returns the variables by which programs find it."""
    if plan.workers == 1 or plan.device != "cuda" or not has_mps():
        return {}

    pipes, logs = scratch / "mps", scratch / "mps-log"
    pipes.mkdir()
    logs.mkdir()
    found = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}
    command = [_MPS, "-f"]  # in the foreground, so that it ends with its program
    stack.enter_context(started("MPS", command, os.environ | found, scratch / "mps.log"))
    return found


def gmr(python: str, *arguments: str, url: str) -> list[str]:
    """The command line of a `gmr` command that serves at `url`."""
    return [python, "-m", "service.cli", *arguments, "--port", calls.port_of(url)]


def is_ready(url: str) -> bool:
    """True if a gateway or a worker reports ready; raises `OSError` where nothing listens."""
    return calls.answers(url, "/health/ready")


def service_environment(plan: Plan, checkpoint: Checkpoint, engine: str) -> dict[str, str]:
    """The environment of a gateway and of a worker that runs `checkpoint` on `engine`."""
    return environment_of(plan, checkpoint.folder, engine)


def environment_of(plan: Plan, folder: Path, engine: str) -> dict[str, str]:
    """The same for the folder of a checkpoint."""
    settings = {
        "RERANK_MODEL": str(folder),
        "RERANK_ENGINE": engine,
        "RERANK_DEVICE": plan.device,
        "RERANK_THREADS": str(len(plan.cores)),
        "RERANK_LOG_LEVEL": "warning",
        "RERANK_DEFAULT_TIMEOUT_MS": _TIMEOUT_MS,
    }
    if engine == "vllm":
        for name, value in plan.engine_settings().items():
            settings[f"{ENGINE_PREFIX}{name.upper()}"] = value
        settings |= plan.vllm_environment(bind_cores=True)
    return inherited_environment() | settings


def inherited_environment() -> dict[str, str]:
    """This process's environment without engine arguments, which only some programs get.

    Programs drain for 0 seconds when they are stopped: no load balancer has to notice.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENGINE_PREFIX)}
    return kept | {"RERANK_DRAIN_SECONDS": "0"}
