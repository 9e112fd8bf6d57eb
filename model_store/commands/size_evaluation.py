"""`gmr size --task`: the storage, time and cost of an evaluation.

Does not depend on how they are computed. Invariant: the output states what was assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from model_store.commands.console import misuse, refusing
from model_store.commands.size_lines import duration, heading, rate_source

if TYPE_CHECKING:
    from model_store.evaluation.planning.benchmark import Evaluation, FirstStagePlan
    from model_store.evaluation.planning.plan import Machine

FIRST_STAGES = ("own", "bm25", "gme")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a plan."""

    task: str
    top_k: int
    first_stage: str
    gpus: int
    price: float | None
    as_json: bool


def print_evaluation(asked: Asked, machine: Machine) -> None:
    """Print the plan of an evaluation."""
    from model_store.evaluation.planning.benchmark import plan_benchmark
    from model_store.evaluation.tasks.dataset import TaskUnusable
    from model_store.evaluation.tasks.opening import open_benchmark
    from model_store.sizing.network import ImagesNotRead

    if asked.first_stage not in FIRST_STAGES:
        misuse(f"--first-stage of a plan is one of {', '.join(FIRST_STAGES)}.")
    with refusing(TaskUnusable, usage=(ImagesNotRead,)):
        benchmark = open_benchmark(asked.task)
        plan = plan_benchmark(benchmark, asked.top_k, asked.first_stage, machine)

    if asked.as_json:
        _print_json(plan, asked, machine)
        return
    for line in _lines(plan, asked, machine):
        typer.echo(line)


def _lines(plan: Evaluation, asked: Asked, machine: Machine) -> list[str]:
    total = plan.total
    source = rate_source(machine.gpu, machine.efficiency, measured=machine.measured is not None)
    hours = plan.gpu_hours
    tasks = "task" if plan.tasks == 1 else "tasks"
    lines = [
        heading(machine.network, machine.gpu),
        (
            f"task       {plan.name}: {plan.tasks} {tasks}, {total.queries:,} queries,"
            f" {total.pairs:,} pairs of up to {asked.top_k} candidates"
        ),
        (
            f"storage    {_bytes(plan.run_bytes)} in the run's folder,"
            f" {_bytes(plan.cached_bytes)} in Redis where scores are cached"
        ),
        f"time       {duration(hours, 'GPU ')} ({source}), {_spread(hours, asked.gpus)}",
        f"gateways   {plan.gateway_cores(asked.gpus):.1f} cores while it runs",
    ]
    if plan.first_stage is not None:
        lines.append(_first_stage(plan, plan.first_stage))
    if asked.price is not None:
        lines.append(
            f"cost       {asked.price * plan.all_gpu_hours:,.2f} for"
            f" {duration(plan.all_gpu_hours, 'GPU ')} at {asked.price:,.2f} an hour"
        )
    lines += _cells(plan)
    if plan.unknown:
        lines.append(
            f"not in it  {len(plan.unknown)} datasets whose sizes are not known, such as"
            f" {plan.unknown[0]}"
        )
    return lines


def _cells(plan: Evaluation) -> list[str]:
    """A line for each cell, where there are several."""
    if len(plan.cells) < 2:
        return []
    width = max(10, *(len(cell) for cell in plan.cells))
    return [
        f"{cell:{width}} {part.queries:>9,} queries {part.pairs:>12,} pairs"
        f" {duration(plan.hours_of(part), 'GPU '):>17}"
        for cell, part in plan.cells.items()
    ]


def _first_stage(plan: Evaluation, stage: FirstStagePlan) -> str:
    if stage.gpu_seconds:
        hours = stage.gpu_seconds / 3600 / plan.assumptions.busy
        return (
            f"gme        {stage.documents:,} documents embedded in {duration(hours, 'GPU ')},"
            f" {_bytes(stage.bytes)} of vectors"
        )
    return (
        f"bm25       {stage.documents:,} documents and all queries in"
        f" {duration(stage.processor_seconds / 3600)} of a processor core, with up to"
        f" {_bytes(stage.bytes)} of memory"
    )


def _spread(hours: float, gpus: int) -> str:
    return f"{duration(hours / gpus)} on {gpus} GPU" + ("s" if gpus > 1 else "")


def _print_json(plan: Evaluation, asked: Asked, machine: Machine) -> None:
    import json
    from dataclasses import asdict

    described: dict[str, Any] = {
        "model": machine.network.name,
        "gpu": machine.gpu.name,
        "asked": asdict(asked),
        "efficiency": machine.efficiency,
        "pairs_per_second": machine.measured,
        "assumed": asdict(plan.assumptions),
        "gpu_hours": plan.gpu_hours,
        "all_gpu_hours": plan.all_gpu_hours,
        "run_bytes": plan.run_bytes,
        "cached_bytes": plan.cached_bytes,
        "gateway_cores": plan.gateway_cores(asked.gpus),
        "first_stage": None if plan.first_stage is None else asdict(plan.first_stage),
        "total": asdict(plan.total),
        "cells": {cell: asdict(part) for cell, part in plan.cells.items()},
        "unknown": plan.unknown,
    }
    typer.echo(json.dumps(described, indent=2))


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
