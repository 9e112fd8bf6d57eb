"""`gmr bench --soak N`: whether the service's memory grows over many requests of mixed kinds.

Knows requests and process trees. Invariant: growth is counted from the end of a warm-up of one
tenth, by which time bounded caches that this run fills are full.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.measure import memory_bytes
from service.bench.comparison.report import write
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.starting import start_service
from service.bench.traffic import requests
from service.bench.workloads import WORKLOADS

_SPANS = 10
"""Memory is read at the beginning and after each tenth."""
_DISTINCT = 64
"""Distinct requests of a kind: an engine keeps the pictures it has seen, up to gigabytes, which is
no leak."""
_CACHE_BYTES = str(2**20)
"""So small a score cache is full after the warm-up."""


def run_soak(plan: Plan, count: int) -> int:
    """Send, print and write; the exit code is always 0. Raises as `run_bench` does."""
    console = Console()
    kinds = [letter for letter in plan.workloads if letter in WORKLOADS]
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as scratch,
        ExitStack() as stack,
    ):
        checkpoint = make_checkpoint(plan, Path(scratch))
        service = start_service(
            plan,
            checkpoint,
            plan.engine,
            Path(scratch),
            stack,
            RERANK_CACHE_MEMORY_BYTES=_CACHE_BYTES,
        )
        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        memory = []
        for span in range(_SPANS):
            numbers = range(count * span // _SPANS, count * (span + 1) // _SPANS)
            with ThreadPoolExecutor(plan.callers[0]) as callers:
                list(
                    callers.map(
                        lambda body: calls.post(service.url, "/rerank", body),
                        _bodies(kinds, numbers, plan, tokenizer),
                    )
                )
            memory.append(memory_bytes(service.programs))
            console.print(f"{numbers.stop} requests: {sum(memory[-1].values()) / 2**20:.0f} MiB")
    grown = growth(memory)
    console.print(_table(memory, grown, count))
    report = describe(plan) | {
        "model": plan.model,
        "engine": plan.engine,
        "requests": count,
        "documents": plan.documents,
    }
    report |= {"memory_mib": [_mib(each) for each in memory], "growth_mib": _mib(grown)}
    if plan.output:
        write(report, plan.output)
    return 0


def growth(memory: Sequence[dict[str, float]]) -> dict[str, float]:
    """What each role has at the end more than after the warm-up, in bytes."""
    first, last = memory[0], memory[-1]
    return {role: last.get(role, 0.0) - first.get(role, 0.0) for role in sorted({*first, *last})}


def _bodies(
    kinds: Sequence[str], numbers: Sequence[int], plan: Plan, tokenizer: LiteralTokenizer
) -> list[bytes]:
    """Requests of all kinds in turns, which are scored each time, and remembered."""
    bodies: dict[tuple[str, int], bytes] = {}
    asked = [(kinds[number % len(kinds)], number // len(kinds) % _DISTINCT) for number in numbers]
    for letter, sample in set(asked):
        request = requests(letter, plan.documents, 1, sample, tokenizer)[0]
        bodies[letter, sample] = json.dumps(replace(request, cache="refresh").body()).encode()
    return [bodies[each] for each in asked]


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
    rows: list[tuple[str, Any]] = [(role, memory[0].get(role, 0.0)) for role in grown]
    for role, first in rows:
        table.add_row(
            role, *(f"{size / 2**20:.1f}" for size in (first, first + grown[role], grown[role]))
        )
    return table
