"""The engine contract: what a worker asks of whatever runs the network, and how it is told whether
that gets on."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from model_store.checkpoint import Adapter, Checkpoint
from service.observability.engine_metrics import BATCH_FILL, BATCH_PAIRS, BATCH_TOKENS, ENGINE_STEPS
from service.wire import Refused, ScoreCall, Scored, WorkerInfo

PairVerdict = tuple[int, Scored | Refused]
"""A document's index in its call, and what became of the pair."""

Begin = Callable[[], None]


def no_callback() -> None:
    """Nobody asks when the engine begins."""


class Engine(Protocol):
    """Runs one model. Scores are fp32 logit(yes) - logit(no) (paper, eq. 1), the same whatever else
    is being scored."""

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        """Load a checkpoint, and adapters on top of it; say what is served: the checkpoint first,
        then each adapter.

        Raises `CannotLoad` with one sentence where that fails.
        """
        ...

    def score(
        self, call: ScoreCall, begin: Begin = no_callback
    ) -> AsyncGenerator[PairVerdict, None]:
        """A verdict on each document, as they come. Closing the generator abandons the rest of the
        work.

        `begin` is told, on any thread and perhaps often, that the engine works on the call.
        """
        ...

    def healthy(self) -> bool:
        """Whether it makes progress while there is work."""
        ...

    def stalled_seconds(self) -> float:
        """How long there has been work of which nothing was done; 0 where there is none."""
        ...

    def ended(self) -> bool:
        """Whether it can never score again: the process is to be replaced."""
        ...

    async def close(self) -> None:
        """Let go of the model."""
        ...


class Progress:
    """How long there has been work, all in all, since a piece of it was last done. Pieces begin and
    end on any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work = 0
        self._since = 0.0
        self._earlier = 0.0

    def begin(self) -> None:
        """Count a piece of work."""
        with self._lock:
            if not self._at_work:
                self._since = self._clock()
            self._at_work += 1

    def end(self, *, done: bool = True) -> None:
        """It has ended; not `done`: it was taken back. Then the time that it waited in vain still
        counts."""
        with self._lock:
            self._at_work -= 1
            if done:
                self._earlier, self._since = 0.0, self._clock()
            elif not self._at_work:
                self._earlier += self._clock() - self._since

    def stalled_seconds(self) -> float:
        """How long there has been work of which nothing was done; callers who give up early add
        up."""
        with self._lock:
            return self._earlier + (self._clock() - self._since if self._at_work else 0.0)


def count_step(pairs: int, tokens: int, fill: float) -> None:
    """Count a forward pass: what it scored, what it computed, and the share of its token budget
    that it used."""
    ENGINE_STEPS.inc()
    BATCH_PAIRS.observe(pairs)
    BATCH_TOKENS.observe(tokens)
    BATCH_FILL.observe(min(1.0, fill))


class CannotLoad(Exception):
    """A model that cannot be served; its text is one sentence for the operator."""


class EngineDead(Exception):
    """An engine has ended: nothing is scored before a restart."""


class EngineRefused(Exception):
    """An engine could not do one thing; it goes on with the rest."""
