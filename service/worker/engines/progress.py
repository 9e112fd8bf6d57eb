"""Progress of an engine: the time since work was last completed, and metrics of forward passes.

Depends on a clock and the engine's metrics, not on calls or prompts. Invariant: time without work
never counts as a stall.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from service.observability.engine_metrics import BATCH_FILL, BATCH_PAIRS, BATCH_TOKENS, ENGINE_STEPS


class Progress:
    """Counts pieces of work and measures for how long none was completed.

    Pieces begin and end on any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pending = 0
        self._since = 0.0
        self._abandoned_seconds = 0.0

    def begin(self) -> None:
        """Count one more piece of work."""
        with self._lock:
            if not self._pending:
                self._since = self._clock()
            self._pending += 1

    def end(self, *, done: bool = True) -> None:
        """Count one piece less.

        A piece that is not `done` was abandoned, and the time for which it waited still counts.
        """
        with self._lock:
            self._pending -= 1
            if done:
                self._abandoned_seconds = 0.0
                self._since = self._clock()
            elif not self._pending:
                self._abandoned_seconds += self._clock() - self._since

    def advance(self) -> None:
        """Count progress of a piece that goes on, such as one of many tokens."""
        with self._lock:
            self._abandoned_seconds = 0.0
            self._since = self._clock()

    def stalled_seconds(self) -> float:
        """Seconds of pending work without a completed piece.

        Pieces that are abandoned early add up, until one is completed.
        """
        with self._lock:
            waiting = self._clock() - self._since if self._pending else 0.0
            return self._abandoned_seconds + waiting


def count_step(pairs: int, tokens: int, fill: float) -> None:
    """Count one forward pass: pairs scored, tokens computed, and the share of its token budget."""
    ENGINE_STEPS.inc()
    BATCH_PAIRS.observe(pairs)
    BATCH_TOKENS.observe(tokens)
    BATCH_FILL.observe(min(1.0, fill))
