"""`gmr bench --training`: pairs a second and memory of training steps, with each pair as a row of
its own and with the query shared, in turns.

Depends on programs that make steps, not on tensors of a step. Invariant: both ways make a step of
the same row in each sample, one after the other, and no figure is reported where their gradients
disagree.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from model_store.checkpoint import Checkpoint
from service.bench.checkpoints import make_checkpoint
from service.bench.machine import describe
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import ProgramFailed
from service.bench.results import write_report
from service.bench.training.rows import NEGATIVES, write_rows
from service.bench.workloads import WORKLOADS

TARGET = 1.8
"""The least ratio of pairs a second that workload T is to reach."""
AGREEMENT = {"float32": 1e-5, "bfloat16": 0.05}
"""Largest difference of two gradients, as a share of the largest entry."""
WAYS = ("rows", "shared")
_SECONDS = 1800
"""Time that a program has to load, or for one step: the machine may be busy."""
_BUDGET = 2**17
"""Tokens of a batch: a group of any workload is one batch in both ways."""


def run_training(plan: Plan, checkpointing: Sequence[bool] = (False, True)) -> int:
    """Measure, print a table, write JSON; returns 1 where a figure misses the target.

    `checkpointing` are the settings of that name to measure with. Raises `BenchRefused`,
    `ProgramFailed` and `CheckpointUnusable`.
    """
    letters = [letter for letter in plan.workloads if letter in WORKLOADS]
    if not letters:
        raise BenchRefused(f"--training has the workloads {', '.join(WORKLOADS)}.")

    if plan.random_weights:
        raise BenchRefused("--training needs a checkpoint that has weights.")

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder:
        scratch = Path(folder)
        checkpoint = make_checkpoint(plan, scratch)
        for letter in letters:
            tokenizer = checkpoint.family.tokenizer
            # the first row is one to warm up
            data = write_rows(scratch / letter, letter, plan.samples + 1, tokenizer)
            for twice in checkpointing:
                row = _measure(plan, checkpoint, data, checkpointing=twice)
                rows.append({"workload": letter} | row)

    Console().print(_table(rows))
    report = {
        **describe(plan),
        "model": plan.model,
        "dtype": plan.dtype,
        "pairs_a_group": NEGATIVES + 1,
        "target": TARGET,
        "rows": rows,
    }
    if plan.output:
        write_report(report, plan.output)
    return int(any(row["workload"] == "T" and row["ratio"] < TARGET for row in rows))


def _measure(
    plan: Plan, checkpoint: Checkpoint, data: Path, *, checkpointing: bool
) -> dict[str, Any]:
    """The medians of both ways for one workload, from samples in turns."""
    samples: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        programs: dict[str, subprocess.Popen[str]] = {}
        for way in WAYS:
            config = _config(plan, checkpoint, data, way, checkpointing=checkpointing)
            programs[way] = stack.enter_context(_started(plan, config))
        for number in range(plan.samples + 1):
            for way in WAYS if number % 2 else WAYS[::-1]:
                step = _step(programs[way], number)
                if number:
                    samples[way].append(step)
        difference = _difference(*(_gradients(data, way) for way in WAYS))

    if difference > AGREEMENT[plan.dtype]:
        raise BenchRefused(
            f"The gradients of the two ways differ by {difference:.1e} of the largest entry, more"
            f" than {AGREEMENT[plan.dtype]:g}: no figure means anything."
        )
    both = list(zip(samples["rows"], samples["shared"], strict=True))
    return {
        "checkpointing": checkpointing,
        "ratio": statistics.median(one["seconds"] / other["seconds"] for one, other in both),
        "cpu_ratio": statistics.median(
            one["cpu_seconds"] / other["cpu_seconds"] for one, other in both
        ),
        "gradient_difference": difference,
        **{way: _medians(samples[way]) for way in WAYS},
        "samples": samples,
    }


def _config(
    plan: Plan, checkpoint: Checkpoint, data: Path, way: str, *, checkpointing: bool
) -> Path:
    """The configuration of a run that trains in this way, in a file."""
    values = {
        "model": str(checkpoint.folder),
        "output": str(data.parent / "run"),
        "data": {"train": str(data), "negatives": NEGATIVES, "random_share": 1.0},
        "batch": {
            "examples": 1,
            "tokens": _BUDGET,
            "checkpointing": checkpointing,
            "shared_prefix": way == "shared",
        },
        "precision": {"float32": "fp32", "bfloat16": "bf16"}[plan.dtype],
        "device": plan.device,
    }
    path = data.parent / f"{way}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@contextmanager
def _started(plan: Plan, config: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that makes steps, loaded; raises `ProgramFailed`."""
    gradients = _gradients(config, config.stem)
    arguments = [str(config), str(len(plan.cores)), str(gradients)]
    with (
        config.with_suffix(".log").open("w+", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", "service.bench.training.steps", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            _answer(process)
            yield process
        except ProgramFailed:
            log.seek(0)
            last = log.read()[-2000:].strip()
            raise ProgramFailed(f"A program of training steps ended or hung:\n{last}") from None
        finally:
            process.kill()


def _step(process: subprocess.Popen[str], number: int) -> dict[str, float]:
    """Ask for a step on a row; raises `ProgramFailed`."""
    assert process.stdin is not None
    try:
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
    except OSError:
        raise ProgramFailed from None
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> dict[str, float]:
    """The next line of a program; raises `ProgramFailed` where it ends first or takes too long."""
    assert process.stdout is not None
    limit = threading.Timer(_SECONDS, process.kill)
    limit.start()
    try:
        line = process.stdout.readline()
    finally:
        limit.cancel()
    if not line:
        raise ProgramFailed
    answer: dict[str, float] = json.loads(line)
    return answer


def _gradients(beside: Path, way: str) -> Path:
    """The file of a way's gradient, in the folder of its rows."""
    return beside.parent / f"{way}.safetensors"


def _difference(one: Path, other: Path) -> float:
    """The largest difference of two gradients, as a share of the largest entry of the first."""
    first, second = load_file(one), load_file(other)
    size = max(float(each.abs().max()) for each in first.values())
    return max(float((first[name] - second[name]).abs().max()) for name in first) / size


def _medians(samples: list[dict[str, float]]) -> dict[str, float]:
    found = {name: statistics.median(step[name] for step in samples) for name in samples[0]}
    return found | {
        "pairs_per_second": statistics.median(step["pairs"] / step["seconds"] for step in samples),
        "steps_mib": max(step["steps_mib"] for step in samples),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    """A row for each workload, with and without checkpointing."""
    table = Table(title="training steps: pairs as rows / behind a shared prefix")
    columns = ("workload", "checkpointing", "tokens", "pairs/s", "ratio", "CPU s a step", "ratio")
    for column in (*columns, "memory of steps, MiB", "gradients differ by"):
        table.add_column(column, justify="right")
    for row in rows:
        apart, shared = row["rows"], row["shared"]
        table.add_row(
            row["workload"],
            "on" if row["checkpointing"] else "off",
            f"{apart['tokens']:.0f} / {shared['tokens']:.0f}",
            f"{apart['pairs_per_second']:.1f} / {shared['pairs_per_second']:.1f}",
            f"{row['ratio']:.2f}",
            f"{apart['cpu_seconds']:.2f} / {shared['cpu_seconds']:.2f}",
            f"{row['cpu_ratio']:.2f}",
            f"{apart['steps_mib']:.0f} / {shared['steps_mib']:.0f}",
            f"{row['gradient_difference']:.0e}",
        )
    return table
