"""The progress of a long run: rows done, rows a second, and the time that is left.

Depends on the terminal alone. Invariant: rows that an earlier run has done count as done, and not
for the rate.
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
def rows_progress(total: int, done: int) -> Iterator[Advance]:
    """Show how many of `total` rows are done, `done` of them before: a bar on a terminal, lines in
    a log."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        lines = _Lines(total, done)
        yield lines.advance
        lines.show()
        return

    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(TextColumn("scoring"), *columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda rows: bar.advance(task, rows)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f} rows/s" if task.speed else "")


class _Lines:
    """Progress for a log."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._new = total, done, 0
        self._began = self._shown = time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        self._new += rows
        if time.monotonic() - self._shown >= LINE_SECONDS:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        rate = self._new / max(self._shown - self._began, 1e-9)
        line = f"scoring: {self._done:,} of {self._total:,} rows"
        if self._new:
            left = (self._total - self._done) / rate
            line += f", {rate:,.1f} rows/s, {_duration(left)} left"
        typer.echo(line, err=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
