"""Early stop: the end of a run by nDCG@10 of held-out examples, and the best state so far.

Depends on numbers and tensors by name, not on a network or on files. Invariant: equal evaluations
give equal decisions, so a run that is resumed from what `kept` gives ends as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from model_store.training.config import EarlyStopConfig


class Evaluations(BaseModel):
    """Evaluations so far: the best one, and how long none was better.

    `reference` is the value that the next one must exceed by the least gain to count as a gain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    best_step: int
    best_ndcg: float
    reference: float
    without_gain: int


@dataclass(frozen=True, slots=True)
class Best:
    """The best state and the evaluations that it was the best of; `weights` are on the CPU."""

    evaluations: Evaluations
    weights: dict[str, Tensor]


class EarlyStop:
    """Follows the evaluations of a run."""

    def __init__(self, config: EarlyStopConfig, best: Best | None = None) -> None:
        """Continue after the evaluations of `best`."""
        self._config, self.best = config, best

    @property
    def is_over(self) -> bool:
        """True once `patience` evaluations in a row brought no gain."""
        best = self.best
        return best is not None and best.evaluations.without_gain >= self._config.patience

    def add(self, step: int, ndcg: float, weights: Callable[[], dict[str, Tensor]]) -> Evaluations:
        """Count an evaluation; `weights` is called where it is the best so far."""
        if self.best is None:
            self.best = Best(_first(step, ndcg), _copied(weights()))
            return self.best.evaluations

        before = self.best.evaluations
        gained = ndcg > before.reference + self._config.least_gain
        is_best = ndcg > before.best_ndcg
        evaluations = Evaluations(
            best_step=step if is_best else before.best_step,
            best_ndcg=max(ndcg, before.best_ndcg),
            reference=ndcg if gained else before.reference,
            without_gain=0 if gained else before.without_gain + 1,
        )
        kept = _copied(weights()) if is_best else self.best.weights
        self.best = Best(evaluations, kept)
        return evaluations

    def reason(self) -> str:
        """The end of the run as a sentence."""
        assert self.best is not None
        counted = f"{self._config.patience} evaluation{'s' if self._config.patience > 1 else ''}"
        gain = f" by more than {self._config.least_gain:g}" if self._config.least_gain else ""
        best = self.best.evaluations
        return (
            f"nDCG@10 of held-out rows did not rise{gain} in {counted}: the best was"
            f" {best.best_ndcg:.4f} after step {best.best_step}."
        )


def _first(step: int, ndcg: float) -> Evaluations:
    return Evaluations(best_step=step, best_ndcg=ndcg, reference=ndcg, without_gain=0)


def _copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that the next step does not change."""
    return {name: weight.clone() for name, weight in weights.items()}
