"""`gmr bench`: start everybody, have them answer the same requests in turns, and report.

The story of one run, about one screen. Knows the plan and the other modules, no server. Invariant:
every ratio comes from samples taken in turns in one run, one contender awake at a time, and a
contender whose scores differ from the first one's is void.
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
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.chart import draw
from service.bench.comparison.contenders import Contender, pause
from service.bench.comparison.measure import idle_cores, take
from service.bench.comparison.report import Comparison, summarise, tables, voided, write
from service.bench.comparison.roofline import Network, work
from service.bench.machine import describe, matmul_rates
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.starting import start
from service.bench.traffic import WARM_UP, requests

_IDLE_SECONDS = 2.0
_WIDTH = 120
_LOOP_WARM_UP = 3
"""Documents that a loop warms up on: it computes nothing twice, and takes long."""


def run_bench(plan: Plan) -> int:
    """Run, print tables, write JSON and a chart; gives the exit code: 1 where scores disagree.

    Raises `BenchRefused`, `CheckpointUnusable`, `ProgramFailed` or `CallFailed`; whatever was
    started is stopped.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as scratch,
        ExitStack() as stack,
    ):
        checkpoint = make_checkpoint(plan, Path(scratch))
        network = Network(checkpoint.folder)
        contenders, idle = _start_all(plan, checkpoint, Path(scratch), stack, console)
        rates = matmul_rates(plan, [contender.dtype for contender in contenders], network.matrices)
        comparisons = []
        for callers in plan.callers:
            for letter in plan.workloads:
                comparison = _compare(plan, contenders, letter, callers, checkpoint, network)
                comparisons.append(comparison)
                console.print(f"{letter}, {callers} at once: {len(comparison.samples)} compared")
    report = describe(plan) | summarise(plan, comparisons, rates, idle)
    for table in tables(report):
        console.print(table)
    if plan.output:
        write(report, plan.output)
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
    """Everybody, started one after the other and put to sleep, and how many cores each keeps busy
    with nothing to do."""
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
    network: Network,
) -> Comparison:
    """All samples of one workload at one number of callers."""
    able = [contender for contender in contenders if contender.concurrent or callers == 1]
    comparison = Comparison(
        letter, callers, {contender.name: contender.dtype for contender in able}
    )
    tokenizer = LiteralTokenizer.load(checkpoint.folder)
    for sample in range(WARM_UP, plan.samples):
        asked = requests(letter, plan.documents, callers, sample, tokenizer)
        if sample == WARM_UP:
            for contender in able:
                few = len(asked[0].documents) if contender.concurrent else _LOOP_WARM_UP
                take(
                    contender,
                    [replace(request, documents=request.documents[:few]) for request in asked],
                )
            continue
        comparison.work.append(work(asked, checkpoint, network))
        first = sample % len(able)
        for contender in (*able[first:], *able[:first]):
            comparison.samples[contender.name].append(take(contender, asked))
    return comparison
