"""One step run within its limit: its program, the end of it and of all that it started, and what it
wrote.

Depends on process trees, not on what a step measures. Invariant: no process of a step outlives the
step, however it ends; figures that were written before a limit are kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from service.bench.gpu.steps import Step
from service.bench.programs import Program, started

DONE, FAILED, OVER_TIME = "done", "failed", "over time"
_STOP_SECONDS = 20.0
"""Time that a program has to stop what it started, before all is killed."""
_LOOK_SECONDS = 2.0
"""Between two looks at the processes that a step has started."""
_KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a step: one of `DONE`, `FAILED` and `OVER_TIME`, its seconds, the report that it
    wrote, complete or not, and the end of its log where it is not done."""

    status: str
    seconds: float
    report: Mapping[str, Any] | None
    log: str


def run_step(step: Step, folder: Path, limit: float) -> Outcome:
    """Run a step for at most `limit` seconds, with its files in `folder`."""
    output, log = folder / f"{step.name}.json", folder / f"{step.name}.log"
    output.unlink(missing_ok=True)
    environment = os.environ | step.environment
    descendants: set[psutil.Process] = set()

    begin = time.monotonic()
    try:
        with started(
            step.name, step.command(output), environment, log, stop_seconds=_STOP_SECONDS
        ) as program:
            code = _wait(program, begin + limit, descendants)
            tail = program.tail()
    finally:
        _kill(descendants)
    seconds = time.monotonic() - begin

    if code is None:
        return Outcome(OVER_TIME, seconds, _read(output), tail)
    if code:
        return Outcome(FAILED, seconds, _read(output), tail)
    return Outcome(DONE, seconds, _read(output), "")


def _wait(program: Program, deadline: float, descendants: set[psutil.Process]) -> int | None:
    """The program's exit code; None where it runs at `deadline`. Adds all that it starts to
    `descendants`, because those of a program that has ended cannot be found."""
    while (left := deadline - time.monotonic()) > 0:
        with suppress(subprocess.TimeoutExpired):
            return program.process.wait(min(_LOOK_SECONDS, left))
        with suppress(psutil.NoSuchProcess):
            descendants.update(psutil.Process(program.process.pid).children(recursive=True))
    return None


def _kill(processes: set[psutil.Process]) -> None:
    """End those that are still there."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(processes), timeout=_KILL_SECONDS)


def _read(output: Path) -> Mapping[str, Any] | None:
    """The report that a step has written; None without one, or where writing was cut off."""
    try:
        report = json.loads(output.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None
