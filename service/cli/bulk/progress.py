"""The progress of a long run: rows or queries done, their rate, and the time that is left.

Depends on the terminal alone. Invariant: what an earlier run has done counts as done, and not for
the rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 10.0
"""Seconds between two lines of a log."""

Advance = Callable[[int], None]


@contextmanager
def rows_progress(total: int, done: int, *, unit: str = "rows") -> Iterator[Advance]:
    """Show how many of `total` rows are done, `done` of them before: a bar on a terminal, lines in
    a log. `unit` is the noun of the lines."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        lines = _Lines(total, done, unit)
        yield lines.advance
        lines.show()
        return

    columns = (BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(TextColumn("scoring"), *columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda rows: bar.advance(task, rows)


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{_short(task.speed)} {self._unit}/s" if task.speed else "")


class _Lines:
    """Progress for a log."""

    def __init__(self, total: int, done: int, unit: str) -> None:
        self._total, self._done, self._new, self._unit = total, done, 0, unit
        self._began = self._shown = time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        self._new += rows
        if time.monotonic() - self._shown >= LINE_SECONDS:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        rate = self._new / max(self._shown - self._began, 1e-9)
        line = f"scoring: {self._done:,} of {self._total:,} {self._unit}"
        if self._new:
            left = max(self._total - self._done, 0) / rate
            line += f", {_short(rate)} {self._unit}/s, {duration(left)} left"
        typer.echo(line, err=True)


def duration(seconds: float) -> str:
    """Seconds as text, such as "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _short(rate: float) -> str:
    """A rate with two digits, or with one behind the point."""
    return f"{rate:.2g}" if rate < 1 else f"{rate:,.1f}"
