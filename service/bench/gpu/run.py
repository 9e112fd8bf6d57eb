"""`gmr bench --gpu`: the steps in order, each within its limit and judged by its stop rule.

Depends on steps and on their programs, on no server. Invariant: the file of results has every step
that was run, whole or cut, before the next one begins; a run that finds the file continues with the
steps that it lacks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from model_store.files import write_atomically
from service.bench.gpu.running import DONE, FAILED, OVER_TIME, Outcome, run_step
from service.bench.gpu.steps import Step
from service.bench.gpu.verdicts import ALL, Verdict
from service.bench.plan import BenchRefused
from service.bench.programs import cleaning_up

SKIPPED, NOT_BEGUN = "skipped", "not begun"
_LEAST_SECONDS = 30.0
"""A step with less time than this is not begun."""
_WIDTH = 150


def run_steps(steps: Sequence[Step], output: Path, *, budget: float | None = None) -> int:
    """Run the steps that `output` lacks, within `budget` seconds together; returns the exit code: 0
    where all are done or skipped by a rule.

    Files of the steps are kept in a folder beside `output`. Raises `BenchRefused` for a file of
    other steps.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    entries, others = _read_entries(output, steps)
    folder = output.with_suffix(".steps")
    folder.mkdir(parents=True, exist_ok=True)

    end = None if budget is None else time.monotonic() + budget
    with cleaning_up():
        for step in steps:
            if step.name in entries:
                console.print(f"{step.name}: {entries[step.name]['status']} before")
                continue

            entries[step.name] = _entry(step, entries, folder, end, console)
            _write([*_ordered(entries, steps), *others], output)

    console.print(_table([*_ordered(entries, steps), *others]))
    ended = {entry["status"] for entry in entries.values()}
    return 0 if ended <= {DONE, SKIPPED} else 1


def _entry(
    step: Step,
    entries: Mapping[str, Mapping[str, Any]],
    folder: Path,
    end: float | None,
    console: Console,
) -> dict[str, Any]:
    """Run one step, unless a rule skips it or the time is up, and describe it as the file has
    it."""
    described = _described(step)
    if reason := _skipped_by(step, entries):
        console.print(f"{step.name}: skipped ({reason})")
        return described | {"status": SKIPPED, "verdict": reason}

    left = step.seconds if end is None else min(step.seconds, end - time.monotonic())
    if left < min(_LEAST_SECONDS, step.seconds):
        console.print(f"{step.name}: not begun, the budget is spent")
        return described | {"status": NOT_BEGUN, "verdict": "the budget is spent"}

    console.print(f"{step.name}: {step.title}, at most {left:.0f} s. {step.rule.text}")
    outcome = run_step(step, folder, left)
    verdict = _judge(step, outcome, entries)
    console.print(f"{step.name}: {outcome.status} after {outcome.seconds:.0f} s. {verdict.text}")
    return described | {
        "status": outcome.status,
        "seconds": round(outcome.seconds, 1),
        "limit": round(left, 1),
        "verdict": verdict.text,
        "skips": verdict.skips,
        "report": outcome.report,
        "log": outcome.log,
    }


def _judge(step: Step, outcome: Outcome, entries: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """The verdict on a step's figures, also on those of a step that was cut off."""
    needed = step.rule.needed_by if outcome.status == FAILED or not outcome.report else ()
    if not outcome.report:
        return Verdict(_last_line(outcome), needed)

    reports = {name: entry.get("report") or {} for name, entry in entries.items()}
    try:
        verdict = step.rule.judge(outcome.report, reports)
    except (KeyError, TypeError) as error:
        return Verdict(f"the report lacks {error}", needed)
    cut = "" if outcome.status == DONE else f"{outcome.status}, figures until then: "
    return Verdict(f"{cut}{verdict.text}", (*verdict.skips, *needed))


def _last_line(outcome: Outcome) -> str:
    if outcome.status == OVER_TIME:
        return "stopped at its limit, with all that it had started, before it wrote a figure"
    lines = [line.strip() for line in outcome.log.splitlines() if line.strip()]
    return lines[-1] if lines else "ended without a figure"


def _skipped_by(step: Step, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The reason for which an earlier step's verdict skips this one; empty where none does."""
    for name, entry in entries.items():
        if {step.name, ALL} & set(entry.get("skips", ())):
            return f"by the rule of {name}"
    return ""


def _described(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "title": step.title,
        "rule": step.rule.text,
        "program": [Path(step.program[0]).name, *step.program[1:]],
        "environment": dict(step.environment),
    }


def _read_entries(
    output: Path, steps: Sequence[Step]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The entries of a file: those of `steps` that are done, by name, and those of other steps."""
    if not output.exists():
        return {}, []
    if not output.is_file():
        raise BenchRefused(f"{output} is no file that can be replaced.")
    if not output.stat().st_size:
        return {}, []
    try:
        stored = json.loads(output.read_text(encoding="utf-8"))["steps"]
        found = {entry["name"]: dict(entry) for entry in stored}
    except (ValueError, KeyError, TypeError):
        raise BenchRefused(f"{output} is no file of `gmr bench --gpu`.") from None

    done = {}
    for step in steps:
        entry = found.pop(step.name, {})
        if entry.get("status") != DONE:
            continue
        described = _described(step)
        if any(entry.get(name) != described[name] for name in ("program", "environment")):
            raise BenchRefused(
                f"{output} has step {step.name} with other options: name another file."
            )
        done[step.name] = entry
    return done, list(found.values())


def _ordered(
    entries: Mapping[str, Mapping[str, Any]], steps: Sequence[Step]
) -> list[Mapping[str, Any]]:
    """The entries in the order of their steps."""
    return [entries[step.name] for step in steps if step.name in entries]


def _write(entries: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Replace the file."""
    report = {"date": time.strftime("%Y-%m-%d"), "steps": entries}
    write_atomically(output, (json.dumps(report, indent=1) + "\n").encode())


def _table(entries: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("step", "status", "seconds", "limit", "figures and verdict", "stop rule")
    table.title = "The first minutes"
    for entry in entries:
        seconds = entry.get("seconds")
        limit = entry.get("limit")
        table.add_row(
            entry["name"],
            entry["status"],
            "" if seconds is None else f"{seconds:.0f}",
            "" if limit is None else f"{limit:.0f}",
            entry["verdict"],
            entry["rule"],
        )
    return table
