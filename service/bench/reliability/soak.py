"""`gmr bench --soak N`: the growth of the service's memory over many requests of mixed kinds.

Depends on requests and process trees. Invariant: growth is counted from the end of a warm-up of one
tenth, when the bounded caches that this run fills are full.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import cleaning_up, memory_bytes
from service.bench.results import write_report
from service.bench.service import RunningService, start_service
from service.bench.traffic import requests
from service.bench.workloads import WORKLOADS

_SPANS = 10
"""Memory is read after each tenth."""
_DISTINCT = 64
"""Distinct requests of a kind: an engine keeps the pictures of the past, up to gigabytes, which is
no leak."""
_SMALL_CACHES = {
    "RERANK_CACHE_MEMORY_BYTES": str(2**20),
    "RERANK_PICTURE_STORE_BYTES": str(2**20),
}
"""Caches of scores and of pictures that are so small that the warm-up fills them."""


def run_soak(plan: Plan, count: int) -> int:
    """Send, print and write; the exit code is always 0. Raises as `run_bench` does."""
    console = Console()
    workloads = [letter for letter in plan.workloads if letter in WORKLOADS]
    memory: list[dict[str, float]] = []
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder,
        ExitStack() as stack,
    ):
        scratch = Path(folder)
        checkpoint = make_checkpoint(plan, scratch)
        service = start_service(plan, checkpoint, plan.engine, scratch, stack, **_SMALL_CACHES)
        tokenizer = LiteralTokenizer.load(checkpoint.folder)

        for span in range(_SPANS):
            numbers = range(count * span // _SPANS, count * (span + 1) // _SPANS)
            _send_all(service, _bodies(workloads, numbers, plan, tokenizer), plan.callers[0])
            memory.append(memory_bytes(service.programs))
            console.print(f"{numbers.stop} requests: {sum(memory[-1].values()) / 2**20:.0f} MiB")

    grown = growth(memory)
    console.print(_table(memory, grown, count))
    report = {
        **describe(plan),
        "model": plan.model,
        "engine": plan.engine,
        "requests": count,
        "documents": plan.documents,
        "memory_mib": [_mib(by_role) for by_role in memory],
        "growth_mib": _mib(grown),
    }

    if plan.output:
        write_report(report, plan.output)
    return 0


def growth(memory: Sequence[dict[str, float]]) -> dict[str, float]:
    """The difference between the end and the end of the warm-up, in bytes by role."""
    first, last = memory[0], memory[-1]
    return {role: last.get(role, 0.0) - first.get(role, 0.0) for role in sorted({*first, *last})}


def _send_all(service: RunningService, bodies: Sequence[bytes], callers: int) -> None:
    with ThreadPoolExecutor(callers) as pool:
        sent = [pool.submit(calls.post, service.url, "/rerank", body) for body in bodies]
    for future in sent:
        future.result()


def _bodies(
    workloads: Sequence[str], numbers: Sequence[int], plan: Plan, tokenizer: LiteralTokenizer
) -> list[bytes]:
    """Requests of all workloads in turns, which are scored each time, and stored in the cache."""
    made: dict[tuple[str, int], bytes] = {}
    bodies = []
    for number in numbers:
        letter = workloads[number % len(workloads)]
        sample = number // len(workloads) % _DISTINCT
        if (letter, sample) not in made:
            (request,) = requests(letter, plan.documents, 1, sample, tokenizer)
            made[letter, sample] = json.dumps(replace(request, cache="refresh").body()).encode()

        bodies.append(made[letter, sample])
    return bodies


def _mib(by_role: dict[str, float]) -> dict[str, float]:
    return {role: round(size / 2**20, 1) for role, size in by_role.items()}


def _table(memory: Sequence[dict[str, float]], grown: dict[str, float], count: int) -> Table:
    table = Table(
        title=(
            f"Memory in MiB (proportional set size) over {count} requests, the first tenth as"
            " warm-up"
        )
    )
    for heading in ("process", "after warm-up", "at the end", "growth"):
        table.add_column(heading, justify="right")

    for role, more in grown.items():
        first = memory[0].get(role, 0.0)
        sizes = [f"{size / 2**20:.1f}" for size in (first, first + more, more)]
        table.add_row(role, *sizes)
    return table
