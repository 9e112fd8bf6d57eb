"""How a run looks to whoever started it: a bar on a terminal, plain lines elsewhere.

Knows numbers, no network. Invariant: nothing is written but on the stream given, and only by the
process that leads.
"""

from __future__ import annotations

import sys
from collections import deque
from datetime import timedelta
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_RECENT = 20
"""Steps whose rate counts as the rate now."""


class Bar:
    """Shows steps as they are done."""

    def __init__(
        self, done: int, steps: int, *, every: int, shown: bool, stream: TextIO | None = None
    ) -> None:
        self._console = Console(
            file=stream or sys.stderr, quiet=not shown, highlight=False, soft_wrap=True
        )
        self._done, self._steps, self._every = done, steps, every
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self._progress: Progress | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("training", total=steps, completed=done)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, step: int, *, loss: float, tokens: float, seconds: float) -> None:
        """One step more, with its SFT loss, and how many tokens it read in how many seconds."""
        self._recent.append((tokens, seconds))
        spent = sum(each[1] for each in self._recent)
        rate = sum(each[0] for each in self._recent) / spent if spent else 0.0
        line = f"loss {loss:.4f}, {rate:,.0f} tokens/s"
        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=line)
        elif step % self._every == 0 or step == self._steps:
            left = (self._steps - step) * spent / len(self._recent)
            self._console.print(
                f"step {step}/{self._steps}: {line}, {timedelta(seconds=round(left))} left"
            )

    def say(self, sentence: str) -> None:
        """A line of its own."""
        self._console.print(sentence)
