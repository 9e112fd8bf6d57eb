"""Progress of a run: a bar on a terminal, plain lines elsewhere.

Depends on numbers alone. Invariant: it writes to no stream but the one given, and only in the
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

_WINDOW = 20
"""Latest steps over which the throughput is averaged."""


class ProgressLog:
    """Shows steps as they are done; `every` is the number of steps between two plain lines."""

    def __init__(
        self, done: int, steps: int, *, every: int, shown: bool, stream: TextIO | None = None
    ) -> None:
        self._console = Console(
            file=stream or sys.stderr, quiet=not shown, highlight=False, soft_wrap=True
        )
        self._steps, self._every = steps, every
        self._recent: deque[tuple[float, float]] = deque(maxlen=_WINDOW)  # (tokens, seconds)
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task("training", total=steps, completed=done)

    def __enter__(self) -> ProgressLog:
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

    def step(
        self, step: int, *, loss: float, tokens: float, seconds: float, name: str = "loss"
    ) -> None:
        """Report a step: its loss, or another value by its name, and the tokens that it read in so
        many seconds."""
        self._recent.append((tokens, seconds))
        total_tokens = sum(tokens for tokens, _ in self._recent)
        total_seconds = sum(seconds for _, seconds in self._recent)
        throughput = total_tokens / total_seconds if total_seconds else 0.0
        description = f"{name} {loss:.4f}, {throughput:,.0f} tokens/s"

        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=description)
        elif step % self._every == 0 or step == self._steps:
            left = (self._steps - step) * total_seconds / len(self._recent)
            self._console.print(
                f"step {step}/{self._steps}: {description}, {timedelta(seconds=round(left))} left"
            )

    def line(self, text: str) -> None:
        """Print a line of its own."""
        self._console.print(text)
