"""How each contender is started, and with which settings: what is the same for all, and what is
each one's own.

Knows command lines and environment variables. Invariant: what is started is ready when it is handed
over, and the stack it was given to stops it.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.comparison import vllm_server
from service.bench.comparison.contenders import Contender, Loop, Service, VllmServer
from service.bench.plan import ENGINE_PREFIX, Plan
from service.bench.programs import ProgramFailed, started

_TIMEOUT_MS = "600000"
"""Slow contenders may take their time: a deadline is not what is measured."""


def start(
    name: str, plan: Plan, checkpoint: Checkpoint, scratch: Path, stack: ExitStack
) -> Contender:
    """Start a contender, wait until it is ready, and have `stack` stop it; raises
    `ProgramFailed`."""
    match name:
        case "ours":
            return start_service(plan, checkpoint, "vllm", scratch, stack)
        case "torch":
            url = calls.free_url()
            command = [sys.executable, "-m", "service.cli", "serve", "--port", calls.port_of(url)]
            program = stack.enter_context(
                started(
                    "service",
                    command,
                    _environment(plan, checkpoint, "torch"),
                    scratch / "torch.log",
                )
            )
            contender: Contender = Service(name, "float32", [program], url, tells_reuse=False)
        case "vllm" | "vllm-tuned":
            url, tuned = calls.free_url(), name == "vllm-tuned"
            command = vllm_server.command(
                plan, checkpoint, calls.port_of(url), scratch / "score.jinja", tuned=tuned
            )
            environment = inherited() | vllm_server.environment(plan, tuned=tuned)
            program = stack.enter_context(
                started("front end", command, environment, scratch / f"{name}.log")
            )
            contender = VllmServer(name, plan.dtype, [program], url, checkpoint, tuned)
        case _:
            frugal = "frugal" if name == "naive-last" else "plain"
            arguments = [str(checkpoint.folder), str(len(plan.cores)), plan.device, frugal]
            command = [sys.executable, "-m", "model_store.evaluation.naive", *arguments]
            program = stack.enter_context(
                started("loop", command, inherited(), scratch / f"{name}.log", piped=True)
            )
            assert program.process.stdout
            if not program.process.stdout.readline():
                raise ProgramFailed(f"The naive loop did not start.\n{program.tail()}")
            contender = Loop(name, [program])
    program.await_ready(contender.ready)
    return contender


def start_service(
    plan: Plan,
    checkpoint: Checkpoint,
    engine: str,
    scratch: Path,
    stack: ExitStack,
    **settings: str,
) -> Service:
    """A gateway before one worker, each a program of its own; `settings` are `RERANK_*` variables
    of both."""
    worker_url, url = calls.free_url(), calls.free_url()
    environment = _environment(plan, checkpoint, engine) | settings
    python = plan.python_vllm if engine == "vllm" else sys.executable
    command = [python, "-m", "service.cli", "worker", "--port", calls.port_of(worker_url)]
    worker = stack.enter_context(started("worker", command, environment, scratch / "worker.log"))
    worker.await_ready(lambda: calls.answers(worker_url, "/health/ready"))
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "gateway",
        "--workers",
        worker_url,
        "--port",
        calls.port_of(url),
    ]
    gateway = stack.enter_context(started("gateway", command, environment, scratch / "gateway.log"))
    dtype = plan.dtype if engine == "vllm" else "float32"
    service = Service(
        "ours", dtype, [gateway, worker], url, worker_url, tells_reuse=engine == "vllm"
    )
    gateway.await_ready(service.ready)
    return service


def _environment(plan: Plan, checkpoint: Checkpoint, engine: str) -> dict[str, str]:
    settings = {
        "RERANK_MODEL": str(checkpoint.folder),
        "RERANK_ENGINE": engine,
        "RERANK_DEVICE": plan.device,
        "RERANK_THREADS": str(len(plan.cores)),
        "RERANK_LOG_LEVEL": "warning",
        "RERANK_DEFAULT_TIMEOUT_MS": _TIMEOUT_MS,
    }
    if engine == "vllm":
        settings |= {
            f"RERANK_ENGINE_{name.upper()}": value for name, value in plan.engine_settings().items()
        }
        settings |= vllm_server.environment(plan, tuned=True)
    return inherited() | settings


def inherited() -> dict[str, str]:
    """This process's environment without the engine's arguments, which are given to those that they
    are meant for.

    What is told to end ends at once: no balancer has to learn of it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENGINE_PREFIX)}
    return kept | {"RERANK_DRAIN_SECONDS": "0"}
