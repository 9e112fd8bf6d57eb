"""`gmr bench`: start all contenders, send them the same requests in turns, and report.

Depends on the plan and on this folder, on no server. Invariant: every ratio comes from samples
taken in turns in one run, with one contender running at a time; a contender whose scores differ
from the first one's is void; what was measured is written after each workload.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from model_store.checkpoint import Checkpoint
from model_store.families.tokens import LiteralTokenizer
from model_store.sizing.network import NetworkCost, network_cost
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.chart import draw
from service.bench.comparison.contenders import Contender, pause
from service.bench.comparison.measure import idle_cores, take_sample
from service.bench.comparison.report import Comparison, summarise, tables, voided
from service.bench.comparison.roofline import layer_matrices, least_work
from service.bench.comparison.starting import start
from service.bench.machine import describe, matmul_rates
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.results import write_report
from service.bench.traffic import WARM_UP, requests
from service.bench.workloads import Request

_IDLE_SECONDS = 2.0
_WIDTH = 120
_LOOP_WARM_UP = 3
"""Documents of a loop's warm-up: it computes every pair by itself, which takes long."""


def run_bench(plan: Plan) -> int:
    """Run, print tables, write JSON and a chart; returns the exit code: 1 where scores disagree.

    Raises `BenchRefused`, `CheckpointUnusable`, `ProgramFailed` or `CallFailed`; all programs that
    were started are stopped.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    comparisons = []
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder,
        ExitStack() as stack,
    ):
        scratch = Path(folder)
        checkpoint = make_checkpoint(plan, scratch)
        network = network_cost(str(checkpoint.folder))
        contenders, idle = _start_all(plan, checkpoint, scratch, stack, console)
        dtypes = [contender.dtype for contender in contenders]
        rates = matmul_rates(plan, dtypes, layer_matrices(network))
        described = describe(plan)

        for callers in plan.callers:
            for letter in plan.workloads:
                comparison = _compare(plan, contenders, letter, callers, checkpoint, network)
                comparisons.append(comparison)
                console.print(f"{letter}, {callers} at once: {len(comparison.samples)} compared")
                report = described | summarise(plan, comparisons, rates, idle)
                if plan.output:
                    write_report(report, plan.output)

    for table in tables(report):
        console.print(table)
    if plan.output:
        draw(report, plan.output.with_suffix(".png"))

    disagreeing = voided(report)
    if disagreeing:
        console.print(
            f"[red]Scores do not agree; these timings are void: {', '.join(disagreeing)}.[/red]"
        )
    return 1 if disagreeing else 0


def _start_all(
    plan: Plan, checkpoint: Checkpoint, scratch: Path, stack: ExitStack, console: Console
) -> tuple[list[Contender], dict[str, float]]:
    """All contenders, started one after the other and paused, and the number of cores that each
    keeps busy without requests."""
    contenders: list[Contender] = []
    idle: dict[str, float] = {}
    for name in plan.contenders:
        with console.status(f"starting {name}"):
            contender = start(name, plan, checkpoint, scratch, stack)
        idle[name] = round(idle_cores(contender, _IDLE_SECONDS), 2)
        pause(contender)
        contenders.append(contender)
        console.print(f"{name}: ready, idle on {idle[name]} cores")
    return contenders, idle


def _compare(
    plan: Plan,
    contenders: Sequence[Contender],
    letter: str,
    callers: int,
    checkpoint: Checkpoint,
    network: NetworkCost,
) -> Comparison:
    """All samples of one workload at one number of callers."""
    able = [contender for contender in contenders if contender.concurrent or callers == 1]
    dtypes = {contender.name: contender.dtype for contender in able}
    comparison = Comparison(letter, callers, dtypes)
    tokenizer = LiteralTokenizer.load(checkpoint.folder)

    warm_up = requests(letter, plan.documents, callers, WARM_UP, tokenizer)
    for contender in able:
        take_sample(contender, warm_up if contender.concurrent else _shortened(warm_up))

    for sample in range(plan.samples):
        sent = requests(letter, plan.documents, callers, sample, tokenizer)
        comparison.work.append(least_work(sent, checkpoint, network))
        first = sample % len(able)
        for contender in (*able[first:], *able[:first]):
            comparison.samples[contender.name].append(take_sample(contender, sent))
    return comparison


def _shortened(requests: Sequence[Request]) -> list[Request]:
    """The requests with their first documents only."""
    return [replace(request, documents=request.documents[:_LOOP_WARM_UP]) for request in requests]
