"""The steps of `gmr bench --gpu`, in order: each one `gmr bench` with other options, and a limit.

Depends on the command line of `gmr bench`, and runs nothing. Invariant: a step's program writes
its figures to the file named by its last argument, after each part of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.bench.gpu import verdicts
from service.bench.gpu.verdicts import Rule
from service.bench.plan import GENERATED, BenchRefused, Plan

LIMIT_SECONDS = {"cpu": 1200.0, "cuda": 180.0}
"""A rehearsal is not for figures, and its machine may be busy."""
_ROWS = {"cpu": (64, 128), "cuda": (8192, 16384)}
"""Rows of the matrix products: those of a step of the engine, and of a larger one."""
_MODELS = {"cpu": (GENERATED, GENERATED), "cuda": ("3b", "7b")}
"""The two sizes; a rehearsal on a CPU has a small one in the place of both."""
_POOL_REQUESTS = 5
"""Requests that fill the pool of documents that come back."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement. `program` is an interpreter with its arguments, `rule` judges its figures,
    and `seconds` is its limit."""

    name: str
    title: str
    program: tuple[str, ...]
    rule: Rule
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = LIMIT_SECONDS["cuda"]

    def command(self, output: Path) -> list[str]:
        """The command line that writes the step's figures to `output`."""
        return [*self.program, "--output", str(output)]


def steps_of(plan: Plan) -> list[Step]:
    """All steps of a plan: at real sizes on a GPU, and on a CPU at a small one, as a rehearsal."""
    small, large = _MODELS[plan.device]

    def bench(model: str, *options: str) -> tuple[str, ...]:
        line: tuple[str, ...] = (sys.executable, "-m", "service.cli", "bench", "--model", model)
        line += ("--device", plan.device, "--python-vllm", plan.python_vllm)
        line += ("--samples", str(plan.samples), "--documents", str(plan.documents))
        return (*line, "--dtype", plan.dtype, *options)

    def ours(model: str, workloads: str, *options: str) -> tuple[str, ...]:
        line = ("--contenders", "ours", "--workloads", workloads)
        return bench(model, *line, *(options or ("--callers", "1")))

    def beside(other: str) -> tuple[str, ...]:
        line = ("--contenders", f"ours,{other}", "--workloads", "T,C", "--callers", "1")
        return bench(small, *line)

    rows = ",".join(map(str, _ROWS[plan.device]))
    rates: tuple[str, ...] = (sys.executable, "-m", "service.bench.gpu.rates", plan.device)
    rates += (plan.dtype, plan.python_vllm, f"{small},{large}", rows)
    pool = str(plan.documents * _POOL_REQUESTS)
    again = bench(small, "--contenders", "ours", "--workloads", "D,DI", "--pool", pool)
    steps = [
        Step("matmul", "matrix products in the models' shapes", rates, verdicts.MATMUL),
        Step("worker", f"our worker, {small}, T and C", ours(small, "T,C"), verdicts.WORKER),
        Step(
            "async",
            "the same with asynchronous scheduling",
            ours(small, "T,C"),
            verdicts.ASYNC,
            {"RERANK_ENGINE_ASYNC_SCHEDULING": "true"},
        ),
        Step(
            "two-workers",
            "the same with two workers on one device",
            ours(small, "T,C", "--callers", "1", "--workers", "2"),
            verdicts.TWO_WORKERS,
        ),
        Step("vllm", "`vllm serve` as documented, beside ours", beside("vllm"), verdicts.VLLM),
        Step("vllm-tuned", "`vllm serve` tuned, beside ours", beside("vllm-tuned"), verdicts.TUNED),
        Step(
            "fp8",
            "our worker with weights in fp8, T and C",
            ours(small, "T,C", "--callers", "1", "--quantization", "fp8"),
            verdicts.FP8,
        ),
        Step("large", f"our worker, {large}, T", ours(large, "T"), verdicts.LARGE),
        Step(
            "documents", f"documents that come back, {small}, D and DI", again, verdicts.DOCUMENTS
        ),
        Step(
            "pictures",
            f"served pictures, {small}, C, 1 and 8 requests at once",
            ours(small, "C", "--callers", "1,8"),
            verdicts.PICTURES,
        ),
    ]
    return [replace(step, seconds=LIMIT_SECONDS[plan.device]) for step in steps]


def chosen_steps(steps: list[Step], skipped: str) -> list[Step]:
    """The steps without those named in a list with commas; raises `BenchRefused`."""
    names = {name.strip() for name in skipped.split(",")} - {""}
    unknown = names - {step.name for step in steps}
    if unknown:
        known = ", ".join(step.name for step in steps)
        raise BenchRefused(f"There is no step {min(unknown)!r}: choose from {known}.")

    left = [step for step in steps if step.name not in names]
    if not left:
        raise BenchRefused("--skip leaves no step to run.")
    return left
