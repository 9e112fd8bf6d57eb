"""The engine contract: what a worker asks of whatever runs the network."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from model_store.registry import Adapter, Checkpoint
from service.contracts import Refused, ScoreCall, Scored, WorkerInfo

Verdict = tuple[int, Scored | Refused]
"""A document's index in its call, and what became of the pair."""


class Scorer(Protocol):
    """Runs one model. Scores are fp32 logit(yes) - logit(no) (paper, eq. 1), the same whatever else is being scored."""

    async def start(self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()) -> list[WorkerInfo]:
        """Load a checkpoint, and adapters on top of it; say what is served: the checkpoint first, then each adapter.

        Raises `CannotLoad` with one sentence where that fails.
        """
        ...

    def score(self, call: ScoreCall) -> AsyncGenerator[Verdict, None]:
        """A verdict on each document, as they come. Closing the generator abandons the rest of the work."""
        ...

    def healthy(self) -> bool:
        """Whether it makes progress while there is work."""
        ...

    def ended(self) -> bool:
        """Whether it can never score again: the process is to be replaced."""
        ...

    async def close(self) -> None:
        """Let go of the model."""
        ...


class CannotLoad(Exception):
    """A model that cannot be served; its text is one sentence for the operator."""


class EngineDead(Exception):
    """An engine has ended: nothing is scored before a restart."""


class EngineRefused(Exception):
    """An engine could not do one thing; it goes on with the rest."""
