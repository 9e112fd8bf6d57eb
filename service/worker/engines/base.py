"""The engine contract: the protocol between a worker and an engine, and an engine's exceptions.

Depends on checkpoints and the wire format, not on any engine. Invariant: a call's documents each
get one verdict, unless the engine raises.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from model_store.checkpoint import Adapter, Checkpoint
from service.wire import Refused, ScoreCall, Scored, WorkerInfo

PairVerdict = tuple[int, Scored | Refused]
"""A document's index in its call, and its score or the reason why it has none."""

Begin = Callable[[], None]


def no_callback() -> None:
    """Ignore that the engine has begun."""


class Engine(Protocol):
    """Runs one model.

    Scores are the read-out's raw scores in fp32, such as logit(yes) - logit(no) (paper,
    equation 1). They do not depend on what else is being scored.
    """

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        """Load a checkpoint, and adapters on top of it.

        Returns a description of each served model: the checkpoint first, then the adapters in
        order. Raises `CannotLoad` with one sentence.
        """
        ...

    def score(
        self, call: ScoreCall, begin: Begin = no_callback
    ) -> AsyncGenerator[PairVerdict, None]:
        """Yield a verdict on each document, in any order.

        Closing the generator abandons the documents that are not scored yet. `begin` is called on
        any thread, perhaps several times, once the engine works on the call.
        """
        ...

    def healthy(self) -> bool:
        """True while the engine makes progress, or has no work."""
        ...

    def stalled_seconds(self) -> float:
        """Seconds of pending work without progress; 0 without work."""
        ...

    def ended(self) -> bool:
        """True once the engine can never score again, so that the process must be replaced."""
        ...

    async def close(self) -> None:
        """Release the model."""
        ...


class CannotLoad(Exception):
    """A model cannot be served; the text is one sentence for the operator."""


class EngineDead(Exception):
    """The engine has ended: nothing is scored before a restart."""


class EngineRefused(Exception):
    """The engine could not do one thing; it goes on with the rest."""
