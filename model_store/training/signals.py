"""Signals that end a run after a whole step.

Does not depend on what runs. Invariant: the handlers that were there before are there afterwards,
and a second signal has their effect.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A run that a signal ended after a step; the state of that step is saved, and the same command
    continues from it."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"Stopped by {signal.Signals(number).name} after step {step}; the same command goes on"
            " from there."
        )
        self.exit_code = 128 + number


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of their ending a step halfway; a second one ends it."""
    received: list[int] = []
    if current_thread() is not main_thread():
        yield received
        return

    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in _SIGNALS:
            signal.signal(number, receive)
        yield received
    finally:
        restore()
