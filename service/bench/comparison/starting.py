"""Starts each contender with its settings: those that are the same for all, and its own.

Depends on command lines and environment variables. Invariant: a contender is ready when it is
handed over, and the caller's stack stops it.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from model_store.checkpoint import Checkpoint
from service.bench import calls
from service.bench.comparison import vllm_server
from service.bench.comparison.contenders import Contender, Loop, Service, VllmServer
from service.bench.plan import Plan
from service.bench.programs import ProgramFailed, started
from service.bench.service import (
    DECODERS,
    gmr,
    inherited_environment,
    service_environment,
    start_service,
)


def start(
    name: str,
    plan: Plan,
    checkpoint: Checkpoint,
    scratch: Path,
    stack: ExitStack,
    **settings: str,
) -> Contender:
    """Start a contender, wait until it is ready, and have `stack` stop it; raises `ProgramFailed`.

    `settings` are `RERANK_*` variables of our service alone.
    """
    match name:
        case "ours":
            service = start_service(plan, checkpoint, "vllm", scratch, stack, **settings)
            return Service(name, plan.dtype, service.programs, service.url)
        case "torch":
            contender = _embedded(plan, checkpoint, scratch, stack)
        case "vllm" | "vllm-tuned":
            contender = _vllm_server(name, plan, checkpoint, scratch, stack)
        case _:
            contender = _loop(name, plan, checkpoint, scratch, stack)

    contender.programs[0].await_ready(contender.ready)
    return contender


def _embedded(plan: Plan, checkpoint: Checkpoint, scratch: Path, stack: ExitStack) -> Contender:
    """`gmr serve` on torch: gateway and worker in one process."""
    url = calls.free_url()
    program = stack.enter_context(
        started(
            "service",
            gmr(sys.executable, "serve", url=url),
            service_environment(plan, checkpoint, "torch"),
            scratch / "torch.log",
            children=DECODERS,
        )
    )
    return Service("torch", "float32", [program], url, counts_reuse=False)


def _vllm_server(
    name: str, plan: Plan, checkpoint: Checkpoint, scratch: Path, stack: ExitStack
) -> Contender:
    """vLLM's own server, as its documentation starts it or tuned."""
    url, tuned = calls.free_url(), name == "vllm-tuned"
    command = vllm_server.command(
        plan, checkpoint, calls.port_of(url), scratch / "score.jinja", tuned=tuned
    )

    environment = inherited_environment() | plan.vllm_environment(bind_cores=tuned)
    program = stack.enter_context(
        started("front end", command, environment, scratch / f"{name}.log")
    )
    return VllmServer(name, plan.dtype, [program], url, checkpoint, tuned)


def _loop(
    name: str, plan: Plan, checkpoint: Checkpoint, scratch: Path, stack: ExitStack
) -> Contender:
    """A loop over transformers that computes every pair by itself."""
    command = [
        sys.executable,
        "-m",
        "model_store.evaluation.naive",
        str(checkpoint.folder),
        str(len(plan.cores)),
        plan.device,
        "frugal" if name == "naive-last" else "plain",
    ]

    program = stack.enter_context(
        started("loop", command, inherited_environment(), scratch / f"{name}.log", piped=True)
    )

    assert program.process.stdout
    if not program.process.stdout.readline():
        raise ProgramFailed(f"The naive loop did not start.\n{program.tail()}")
    return Loop(name, [program])
