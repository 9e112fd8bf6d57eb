"""The service under test: a gateway in front of one worker, each a program of its own.

Depends on the `gmr` command line and on `RERANK_*` variables, on nothing inside the service.
Invariant: both programs are ready when they are handed over, and the caller's stack stops them.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.plan import ENGINE_PREFIX, Plan
from service.bench.programs import Program, started

DECODERS = "decoders"
"""Role of a gateway's child processes, which decode images."""
_TIMEOUT_MS = "600000"
"""No deadline of a slow contender: deadlines are not measured here."""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A gateway at `url` and its worker at `worker_url`."""

    gateway: Program
    worker: Program
    url: str
    worker_url: str

    @property
    def programs(self) -> list[Program]:
        """Both programs, the outer one first."""
        return [self.gateway, self.worker]


def start_service(
    plan: Plan,
    checkpoint: Checkpoint,
    engine: str,
    scratch: Path,
    stack: ExitStack,
    **settings: str,
) -> RunningService:
    """Start a gateway and a worker, wait until they are ready, and have `stack` stop them.

    `settings` are `RERANK_*` variables of both. Raises `ProgramFailed`.
    """
    environment = service_environment(plan, checkpoint, engine) | settings
    worker_url, url = calls.free_url(), calls.free_url()

    python = plan.python_vllm if engine == "vllm" else sys.executable
    worker = stack.enter_context(
        started(
            "worker", gmr(python, "worker", url=worker_url), environment, scratch / "worker.log"
        )
    )
    worker.await_ready(lambda: is_ready(worker_url))

    gateway = stack.enter_context(
        started(
            "gateway",
            gmr(sys.executable, "gateway", "--workers", worker_url, url=url),
            environment,
            scratch / "gateway.log",
            children=DECODERS,
        )
    )
    gateway.await_ready(lambda: is_ready(url))
    return RunningService(gateway, worker, url, worker_url)


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
