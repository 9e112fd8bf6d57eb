"""The engine contract: what a worker asks of whatever runs the network."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from model_store.registry import Checkpoint
from service.contracts import Refused, ScoreCall, Scored, WorkerInfo

Verdict = tuple[int, Scored | Refused]
"""A document's index in its call, and what became of the pair."""


class Scorer(Protocol):
    """Runs one model. Scores are fp32 logit(yes) - logit(no) (paper, eq. 1), the same whatever else is being scored."""

    async def start(self, checkpoint: Checkpoint) -> WorkerInfo:
        """Load a checkpoint and say what is served; raises `CannotLoad` with one sentence where that fails."""
        ...

    def score(self, call: ScoreCall) -> AsyncGenerator[Verdict, None]:
        """A verdict on each document, as they come. Closing the generator abandons the rest of the work."""
        ...

    def healthy(self) -> bool:
        """False once scoring cannot go on without a restart."""
        ...

    async def close(self) -> None:
        """Let go of the model."""
        ...


class CannotLoad(Exception):
    """A model that cannot be served; its text is one sentence for the operator."""
