"""`gmr bench --faults`: the effect of a failed part on callers, and its cost in work.

Depends on faults and on callers' records, not on how the service handles a fault. Invariant: a
fault begins when a quarter of its row's requests are answered and ends when three quarters are;
rows are compared with the row without a fault of the same run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.reliability.injection import FAULTS, Fault, Undo
from service.bench.reliability.load import (
    TURNED_AWAY,
    Outcome,
    Traffic,
    closed_loop,
    open_loop,
    succeeded,
    wrong_answers,
)
from service.bench.reliability.system import System, running_system
from service.bench.results import AGREEMENT, quantile, write_report

CALLERS = 4
CHECKED = 40
"""Answers of a row that are compared with those of an undisturbed service."""
OVERLOAD = 10
"""Requests a second during the overload, as a multiple of the capacity."""
_CALLS = "rerank_worker_calls_total"


@dataclass(frozen=True, slots=True)
class Extent:
    """The faults of a run, the requests of a row for each sample of the plan, and the length of the
    overload."""

    faults: Mapping[str, Fault] = field(default_factory=lambda: FAULTS)
    requests_a_sample: int = 60
    overload_seconds: float = 10


@dataclass(frozen=True, slots=True)
class Row:
    """Callers' view of one fault.

    `failed` counts requests with neither scores nor an invitation to retry. `extra_work` is the
    calls to workers that gave no scores, over those that gave some.
    """

    fault: str
    requests: int
    failed: int
    turned_away: int
    wrong: int
    p50_ms: float
    p99_ms: float
    p99_ratio: float
    extra_work: float


class _Schedule:
    """Begins a fault and ends it, by the number of answers."""

    def __init__(self, fault: Fault, system: System, requests: int) -> None:
        self._fault, self._system = fault, system
        self._start, self._end = requests // 4, 3 * requests // 4
        self._undo: Undo | None = None
        self._over = False

    def on_progress(self, answers: int) -> None:
        """Begin or end the fault where it is time."""
        if self._undo is None and answers >= self._start:
            self._undo = self._fault(self._system)
        elif self._undo and not self._over and answers >= self._end:
            self._over = True
            self._undo()


def run_faults(plan: Plan, extent: Extent | None = None) -> int:
    """Measure, print and write; the exit code is 1 where a score was wrong. Raises as `run_bench`
    does."""
    extent = extent or Extent()
    console = Console()
    rows: list[Row] = []
    with cleaning_up(), TemporaryDirectory(prefix="gmr-bench-") as scratch:
        checkpoint = make_checkpoint(plan, Path(scratch))
        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        with running_system(plan, checkpoint) as system:
            warm_up = Traffic(tokenizer, plan.documents, 0)
            closed_loop(system.gateway.url, warm_up, CALLERS, extent.requests_a_sample)

            for number, (name, fault) in enumerate(extent.faults.items(), start=1):
                traffic = Traffic(tokenizer, plan.documents, number)
                row = _measure(
                    name,
                    fault,
                    system,
                    traffic,
                    requests=extent.requests_a_sample * plan.samples,
                    tolerance=AGREEMENT[plan.dtype],
                    reference_p99=rows[0].p99_ms if rows else None,
                )
                rows.append(row)
                console.print(f"{name}: {row.failed} of {row.requests} failed")

            traffic = Traffic(tokenizer, plan.documents, len(extent.faults) + 1)
            overload = _overload(system, traffic, extent)

    console.print(_table(rows, extent))
    console.print(_sentence(overload), soft_wrap=True)
    report = {
        **describe(plan),
        "model": plan.model,
        "engine": plan.engine,
        "documents": plan.documents,
        "callers": CALLERS,
        "rows": [asdict(row) for row in rows],
        "overload": overload,
    }
    if plan.output:
        write_report(report, plan.output)
    return int(any(row.wrong for row in rows))


def _measure(
    name: str,
    fault: Fault,
    system: System,
    traffic: Traffic,
    *,
    requests: int,
    tolerance: float,
    reference_p99: float | None,
) -> Row:
    """The row of one fault."""
    url = system.gateway.url
    schedule = _Schedule(fault, system, requests)
    calls_before, scored_before = _worker_calls(system)
    outcomes = closed_loop(url, traffic, CALLERS, requests, schedule.on_progress)
    calls_after, scored_after = _worker_calls(system)
    system.await_ready()

    milliseconds = [outcome.seconds * 1000 for outcome in outcomes]
    turned_away = [
        outcome for outcome in outcomes if outcome.status in TURNED_AWAY and outcome.retry_after
    ]

    p99 = quantile(milliseconds, 0.99)
    return Row(
        fault=name,
        requests=requests,
        failed=requests - len(succeeded(outcomes)) - len(turned_away),
        turned_away=len(turned_away),
        wrong=wrong_answers(url, outcomes, CHECKED, tolerance),
        p50_ms=quantile(milliseconds, 0.5),
        p99_ms=p99,
        p99_ratio=p99 / (reference_p99 or p99),
        extra_work=(calls_after - calls_before) / max(1.0, scored_after - scored_before) - 1,
    )


def _worker_calls(system: System) -> tuple[float, float]:
    """The gateway's calls to workers so far, and those of them that gave scores."""
    total = scored = 0.0
    for sample, value in calls.metrics(system.gateway.url).items():
        if sample.startswith(_CALLS):
            total += value
            if 'outcome="ok"' in sample:
                scored += value
    return total, scored


def _overload(system: System, traffic: Traffic, extent: Extent) -> dict[str, float]:
    """The capacity, by a closed loop that keeps every worker busy; then requests at ten times that
    rate, whatever becomes of them; then the capacity again."""
    url, requests = system.gateway.url, extent.requests_a_sample
    start = time.perf_counter()
    closed_loop(url, traffic, 2 * CALLERS, requests)
    capacity = requests / (time.perf_counter() - start)

    start = time.perf_counter()
    outcomes = open_loop(url, traffic, OVERLOAD * capacity, extent.overload_seconds)
    seconds = time.perf_counter() - start
    served = succeeded(outcomes)
    refused = [outcome for outcome in outcomes if outcome.status in TURNED_AWAY]

    start = time.perf_counter()
    closed_loop(url, traffic, 2 * CALLERS, requests)
    recovered = requests / (time.perf_counter() - start)

    return {
        "requests": len(outcomes),
        "served": len(served),
        "turned_away": len(refused),
        "failed": len(outcomes) - len(served) - len(refused),
        "goodput": len(served) / seconds / capacity,
        "p99_ms": _milliseconds(served, 0.99),
        "turned_away_p50_ms": _milliseconds(refused, 0.5),
        "turned_away_p99_ms": _milliseconds(refused, 0.99),
        "recovered": recovered / capacity,
    }


def _milliseconds(outcomes: Sequence[Outcome], share: float) -> float:
    """A quantile of the answers' times; 0 where there are none."""
    if not outcomes:
        return 0.0

    return quantile([outcome.seconds * 1000 for outcome in outcomes], share)


def _table(rows: Sequence[Row], extent: Extent) -> Table:
    table = Table(
        title=(
            f"{CALLERS} callers, {extent.requests_a_sample} requests a sample; a gateway, two"
            " workers, a Redis"
        )
    )
    table.add_column("fault", justify="left")
    for heading in (
        "requests",
        "failed",
        "turned away",
        "wrong scores",
        "p50 ms",
        "p99 ms",
        "p99 / no fault",
        "extra work",
    ):
        table.add_column(heading, justify="right")

    for row in rows:
        table.add_row(
            row.fault,
            str(row.requests),
            str(row.failed),
            str(row.turned_away),
            str(row.wrong),
            f"{row.p50_ms:.0f}",
            f"{row.p99_ms:.0f}",
            f"{row.p99_ratio:.2f}x",
            f"{row.extra_work:.1%}",
        )
    return table


def _sentence(overload: dict[str, float]) -> str:
    served = f"{overload['served']:.0f} of {overload['requests']:.0f} requests were served"
    goodput = f"{overload['goodput']:.0%} of the capacity; p99 {overload['p99_ms']:.0f} ms"
    away = (
        f"p50 {overload['turned_away_p50_ms']:.0f} ms, p99 {overload['turned_away_p99_ms']:.0f} ms"
    )
    return (
        f"At {OVERLOAD} times the capacity, {served} ({goodput}), {overload['turned_away']:.0f}"
        f" turned away ({away}), {overload['failed']:.0f} failed; afterwards,"
        f" {overload['recovered']:.0%} of the capacity."
    )
