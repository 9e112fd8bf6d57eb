"""`gmr bench --priority`: the latency of requests, alone and beside a stream that never ends, in
turns on one service.

Depends on a running service and on traffic, not on how turns are granted. Invariant: both kinds of
sample get the same requests at the same times; the order of the two changes from pair to pair.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from model_store.checkpoint import resolve
from model_store.families.tokens import LiteralTokenizer
from service.bench.calls import metrics, post
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.priority.report import TARGET, PriorityRow, priority_table
from service.bench.priority.traffic import endless_stream, timed_requests
from service.bench.results import quantile, write_report
from service.bench.service import start_service
from service.bench.workloads import make_request

LOADS = (0.2, 0.5)
"""Loads of requests, as parts of the rate at which one caller gets answers."""
_BODIES = 48
_CALIBRATIONS = 12
_LINES_OK = 'rerank_stream_lines_total{outcome="ok"}'


@dataclass(frozen=True, slots=True)
class Windows:
    """Seconds of one sample, and of the pause before it."""

    seconds: float = 30.0
    pause: float = 2.0


def run_priority(plan: Plan, windows: Windows | None = None) -> int:
    """Run, print a table, write JSON; returns the exit code: 1 where a ratio of p99 is above the
    target."""
    windows, console = windows or Windows(), Console()
    checkpoint = resolve(plan.model)
    tokenizer = LiteralTokenizer.load(checkpoint.folder)
    rows: list[PriorityRow] = []
    busy = [os.getloadavg()[0]]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        # the engine leaves a core to the gateway and to the callers, in both kinds of sample
        threads = str(max(1, len(plan.cores) - 1))
        service = start_service(
            plan, checkpoint, plan.engine, scratch, stack, RERANK_THREADS=threads
        )
        for letter in plan.workloads:
            bodies = [
                json.dumps(make_request(letter, plan.documents, seed, tokenizer).body()).encode()
                for seed in range(_BODIES)
            ]
            rows += _measure(service.url, letter, bodies, plan, windows)
            busy.append(os.getloadavg()[0])

    console.print(priority_table(rows))
    if plan.output:
        report = {
            **describe(plan),
            "model": plan.model,
            "engine": plan.engine,
            "documents": plan.documents,
            "samples": plan.samples,
            "load_averages": busy,
            "rows": [row.as_json() for row in rows],
        }
        write_report(report, plan.output)

    missed = [row for row in rows if not row.p99_ratio <= TARGET]
    for row in missed:
        console.print(f"{row.workload} at {row.load:.0%}: the ratio of p99 is above {TARGET}.")
    return int(bool(missed))


def _measure(
    url: str, letter: str, bodies: Sequence[bytes], plan: Plan, windows: Windows
) -> list[PriorityRow]:
    """A row for each load, of samples in turns."""
    rate = _rate(url, bodies)
    with endless_stream(url, bodies):
        time.sleep(windows.pause)
        alone = _stream_pairs(url, plan.documents, windows.seconds)

    rows = []
    for load in LOADS:
        taken: dict[str, list[float]] = {"calm": [], "beside": []}
        pairs: list[float] = []
        for sample in range(plan.samples):
            for kind in sorted(taken, reverse=sample % 2 == 0):
                with endless_stream(url, bodies) if kind == "beside" else nullcontext():
                    time.sleep(windows.pause)
                    before, began = _lines(url), time.perf_counter()
                    taken[kind] += timed_requests(
                        url, bodies, load * rate, windows.seconds, seed=sample
                    )
                    if kind == "beside":
                        lines = _lines(url) - before
                        pairs.append(lines * plan.documents / (time.perf_counter() - began))
        calm, beside = taken["calm"], taken["beside"]
        rows.append(
            PriorityRow(
                letter,
                load,
                requests=len(calm),
                calm_p50=quantile(calm, 0.5),
                calm_p99=quantile(calm, 0.99),
                beside_p50=quantile(beside, 0.5),
                beside_p99=quantile(beside, 0.99),
                stream_pairs=statistics.fmean(pairs),
                stream_alone_pairs=alone,
            )
        )
    return rows


def _rate(url: str, bodies: Sequence[bytes]) -> float:
    """Requests per second of one caller that sends one after the other."""
    taken = []
    for number in range(_CALIBRATIONS):
        began = time.perf_counter()
        post(url, "/rerank", bodies[number % len(bodies)])
        taken.append(time.perf_counter() - began)
    return 1 / statistics.median(taken[2:])


def _stream_pairs(url: str, documents: int, seconds: float) -> float:
    """Pairs per second that streams are answered with."""
    before, began = _lines(url), time.perf_counter()
    time.sleep(seconds)
    return (_lines(url) - before) * documents / (time.perf_counter() - began)


def _lines(url: str) -> float:
    return metrics(url).get(_LINES_OK, 0.0)
