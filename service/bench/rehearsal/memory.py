"""The peak of a program's memory, sampled by a thread while the program works.

Depends on a program's process tree, not on what it does. Invariant: the thread ends with the
context.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.bench.programs import Program

_SECONDS = 0.1
"""Between two samples."""


@dataclass(slots=True)
class MemoryPeak:
    """The largest amounts so far, in bytes."""

    own: int = 0
    """The program's own memory."""
    of_files: int = 0
    """Pages of files, such as weights that are read by mapping them."""
    together: int = 0

    def add(self, own: int, of_files: int) -> None:
        """Count one sample."""
        self.own = max(self.own, own)
        self.of_files = max(self.of_files, of_files)
        self.together = max(self.together, own + of_files)


@contextmanager
def sampled(program: Program) -> Iterator[MemoryPeak]:
    """Sample a program's memory until the context ends."""
    peak, ended = MemoryPeak(), threading.Event()

    def sample() -> None:
        while not ended.wait(_SECONDS):
            peak.add(*program.resident())

    thread = threading.Thread(target=sample, name="memory")
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
