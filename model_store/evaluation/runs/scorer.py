"""The seam between a run and the service that scores: one query's documents to raw scores.

Does not depend on HTTP. Invariant: a score that is None has a reason, and every other failure is
one of the three errors below, which differ in what a run does about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from model_store.evaluation.tasks.dataset import Item


class QueryFailed(Exception):
    """A query that the service does not score: the run records it, and goes on.

    Its text is one sentence. A later run of the same folder scores the query once more. `may_pass`
    is False where that cannot help: the query itself is refused.
    """

    def __init__(self, sentence: str, *, may_pass: bool = False) -> None:
        super().__init__(sentence)
        self.may_pass = may_pass


class ScoringStopped(Exception):
    """No further query can be scored now: the service is gone, full, or refuses the key.

    Its text is one sentence. The run ends; the same command continues it.
    """


class ModelChanged(ScoringStopped):
    """The service has answered with another model than the run began with."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one query's documents, in their order.

    `scores` are raw scores (logits), None where the document was refused; `refusals` are the
    sentences about those, by position.
    """

    scores: list[float | None]
    model_digest: str
    refusals: dict[int, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_pairs: int = 0


class Scorer(Protocol):
    """A served model. It bounds its own requests and retries: a call is one query, of any number of
    documents."""

    async def score(
        self, instruction: str | None, query: Item, documents: Sequence[Item]
    ) -> Scored:
        """Score documents; None is the model's own instruction.

        Raises `QueryFailed` and `ScoringStopped`.
        """
        ...
