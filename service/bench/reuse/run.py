"""`gmr bench --workloads D,DI`: documents that come back under new queries.

Depends on the plan and on this folder, on no server. Invariant: every document of the pool is asked
for once before it is asked for again; ratios come from samples taken in turns in one run, with one
contender running at a time; what was measured is written after each part.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from model_store.checkpoint import Checkpoint
from model_store.families.tokens import LiteralTokenizer
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.contenders import pause
from service.bench.comparison.measure import take_sample
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.results import write_report
from service.bench.reuse.contenders import Served, start_served
from service.bench.reuse.pool import Pool
from service.bench.reuse.prompts import cache_gib, with_prompt
from service.bench.reuse.report import COLD, WARM, Check, Measured, rows_of, table_of, voided

_WIDTH = 150


def run_reuse(plan: Plan) -> int:
    """Run, print a table, write JSON after each workload; returns the exit code: 1 where scores
    disagree.

    Raises as `run_bench` does; all programs that were started are stopped.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    rows: list[dict[str, Any]] = []
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder,
        ExitStack() as stack,
    ):
        scratch = Path(folder)
        checkpoints = _checkpoints(plan, scratch)
        tokenizer = LiteralTokenizer.load(checkpoints[plan.prompts[0]].folder)
        pools = [Pool(each, plan.pool, plan.documents, tokenizer) for each in plan.workloads]
        longest = max(cache_gib(one, plan, pools) for one in checkpoints.values())
        plan = replace(plan, kv_gib=longest)

        served = _start_all(plan, checkpoints, scratch, stack, console)
        described = describe(plan)
        for pool in pools:
            rows += rows_of(plan, _measure(plan, pool, served, console))
            if plan.output:
                write_report(described | _report(plan, checkpoints, rows), plan.output)

    console.print(table_of(rows, plan))
    disagreeing = voided(rows)
    if disagreeing:
        console.print(
            f"[red]Scores do not agree; these timings are void: {'; '.join(disagreeing)}.[/red]"
        )
    return 1 if disagreeing else 0


def _checkpoints(plan: Plan, scratch: Path) -> dict[str, Checkpoint]:
    """The checkpoint of each prompt."""
    made = make_checkpoint(plan, scratch)
    checkpoints = {}
    for prompt in plan.prompts:
        folder = scratch / f"{prompt}-first"
        checkpoints[prompt] = with_prompt(made, prompt, folder, weights=not plan.random_weights)
    return checkpoints


def _start_all(
    plan: Plan,
    checkpoints: dict[str, Checkpoint],
    scratch: Path,
    stack: ExitStack,
    console: Console,
) -> list[Served]:
    """All contenders, started one after the other and paused."""
    found = []
    for name in plan.contenders:
        for prompt, checkpoint in checkpoints.items():
            folder = scratch / f"{name}-{prompt}"
            folder.mkdir()
            with console.status(f"starting {name}, {prompt} first"):
                served = start_served(name, prompt, plan, checkpoint, folder, stack)
            pause(served.contender)
            found.append(served)
            console.print(f"{name}, {prompt} first: ready")
    return found


def _measure(plan: Plan, pool: Pool, contenders: Sequence[Served], console: Console) -> Measured:
    """All samples of one workload.

    Documents beside the pool are for the check, and warm all programs up: another tenant scores
    them cold, then they are asked for, and at the end their scores are warm ones.
    """
    names = [(one.name, one.prompt) for one in contenders]
    measured = Measured(pool.letter, names)
    checked = pool.beside(0)
    cold = {}
    for one in contenders:
        cold[one.name, one.prompt] = take_sample(one.other, [checked])
        take_sample(one.contender, [pool.beside(1)])

    for number in range(pool.first_requests):
        request = pool.first(number)
        for one in _turned(contenders, number):
            sample = take_sample(one.contender, [request])
            measured.samples[COLD, (one.name, one.prompt)].append(sample)
    console.print(f"{pool.letter}: {pool.size} documents asked for")

    for number in range(plan.samples):
        request = pool.again(number)
        for one in _turned(contenders, number):
            sample = take_sample(one.contender, [request])
            measured.samples[WARM, (one.name, one.prompt)].append(sample)
    console.print(f"{pool.letter}: {plan.samples} requests for documents that were asked for")

    for one in contenders:
        warm = take_sample(one.contender, [checked])
        served = (one.name, one.prompt)
        measured.checks[served] = Check(cold[served], warm)
    return measured


def _turned(contenders: Sequence[Served], number: int) -> list[Served]:
    """The contenders in an order whose first one changes from sample to sample."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def _report(
    plan: Plan, checkpoints: dict[str, Checkpoint], rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The report as JSON has it."""
    return {
        "model": plan.model,
        "checkpoints": {prompt: one.digest for prompt, one in checkpoints.items()},
        "device": plan.device,
        "dtype": plan.dtype,
        "quantization": plan.quantization,
        "documents": plan.documents,
        "pool": plan.pool,
        "samples": plan.samples,
        "kv_cache_gib": plan.kv_gib if plan.device == "cpu" else None,
        "engine_settings": plan.engine_settings(),
        "rows": list(rows),
    }
