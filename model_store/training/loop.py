"""The steps of a run: learn, log, evaluate held-out examples, save a state, stop.

Depends on the order of these within a step, not on their details. Invariant: an optimizer step uses
only a finite gradient that all processes share, and a state is saved only after a whole step.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from model_store.training import state
from model_store.training.batches import Unit
from model_store.training.config import TrainConfig
from model_store.training.early_stop import EarlyStop
from model_store.training.gradient import STEP_SUMS, Learner
from model_store.training.heldout import evaluate_held_out
from model_store.training.journal import Journal
from model_store.training.not_finite import refuse_not_finite
from model_store.training.order import Order, Steps
from model_store.training.processes import Processes, moments_of, weights_of
from model_store.training.progress import ProgressLog
from model_store.training.schedule import learning_rate
from model_store.training.signals import Stopped
from model_store.training.sources import Sources

STATES = "states"


@dataclass(slots=True)
class Loop:
    """A model in training.

    `facts` identify the run that a saved state belongs to; `signals` are those received so far.
    """

    config: TrainConfig
    processes: Processes
    sources: Sources
    model: nn.Module
    optimizer: torch.optim.Optimizer
    facts: dict[str, Any]
    signals: Sequence[int]
    early_stop: EarlyStop | None = None

    def run(self, done: int, steps: int, progress: ProgressLog) -> int:
        """Steps `done` + 1 to `steps`, or fewer with an early stop; returns the last one.

        A run that begins evaluates held-out examples first, as step 0. Raises `Stopped`,
        `NotFinite`, `TrainingError` and `DataError`.
        """
        config, processes, sources = self.config, self.processes, self.sources
        order = Order(len(sources.examples), config.batch.examples, config.seed)
        data = Steps(sources.examples, sources.grouper, sources.batcher, order, processes.share)
        learner = Learner(self.model, config.loss, processes, config.seed)
        journal = None
        if processes.leads:
            journal = Journal(config.output, done, tensorboard=config.tensorboard)

        try:
            if done == 0:
                self._evaluate(learner, 0, journal, progress)
            if self._is_over():
                return done

            began = time.monotonic()
            for step, units in data.between(done + 1, steps, config.data.workers, processes.agree):
                row, stop = self._step(learner, units, step, steps)
                now = time.monotonic()
                row["seconds"], began = now - began, now
                _write(journal, step, row)
                progress.step(step, loss=row["sft"], tokens=row["tokens"], seconds=row["seconds"])

                last = step == steps
                if step % config.evaluate_every == 0 or last:
                    self._evaluate(learner, step, journal, progress)
                over = self._is_over()
                if step % config.save_every == 0 or last or stop or over:
                    self.save(step)
                if stop:
                    raise Stopped(stop, step)
                if over:
                    return step
        finally:
            if journal is not None:
                journal.close()
        return steps

    def save(self, step: int) -> None:
        """Save the state after a step; one process writes, and a failure to write stops all."""
        weights, moments = weights_of(self.model), moments_of(self.model, self.optimizer)
        folder, keep = self.config.output / STATES, self.config.keep
        best = None if self.early_stop is None else self.early_stop.best
        self.processes.alone(
            lambda: state.save(folder, step, self.facts, weights, moments, keep=keep, best=best)
        )

    def _is_over(self) -> bool:
        return self.early_stop is not None and self.early_stop.is_over

    def _step(
        self, learner: Learner, units: Sequence[Unit], step: int, steps: int
    ) -> tuple[dict[str, float], int]:
        """Learn from a step's units; returns what is logged, and the signal received, or 0."""
        settings = self.config.optimizer
        statistics = learner.learn(units, step, self.config.batch.examples)
        trained: list[Tensor] = []
        for group in self.optimizer.param_groups:
            trained += group["params"]
        norm = _norm(nn.utils.clip_grad_norm_(trained, settings.clip))
        *totals, terminated, interrupted, broken = self.processes.total(
            [
                *(statistics.sums[name] for name in STEP_SUMS),
                float(signal.SIGTERM in self.signals),
                float(signal.SIGINT in self.signals),
                float(len(statistics.not_finite)),
            ]
        )
        if broken:
            problem = f"Step {step}: the loss is not finite"
            refuse_not_finite(self.processes, statistics.not_finite, problem)
        if not math.isfinite(norm):
            names = list(chain.from_iterable(unit.names for unit in units))
            refuse_not_finite(self.processes, names, f"Step {step}: the gradient is not finite")

        rate = learning_rate(step, steps, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        sums = dict(zip(STEP_SUMS, totals, strict=True))
        row = _logged(sums)
        if self.config.loss.teacher is not None:
            row["teacher"] = sums["teacher"] / sums["examples"]
        row |= {"rate": rate, "gradient": norm}
        if terminated:
            return row, signal.SIGTERM

        return row, signal.SIGINT if interrupted else 0

    def _evaluate(
        self,
        learner: Learner,
        step: int,
        journal: Journal | None,
        progress: ProgressLog,
    ) -> None:
        """Log the metrics of held-out examples, if there are any, and count them."""
        examples = self.sources.dev
        if examples is None:
            return

        metrics = evaluate_held_out(
            self.model,
            learner,
            self.processes,
            examples,
            self.sources.grouper,
            self.sources.batcher,
            count=self.config.evaluate_examples,
            direction=self.config.loss.direction,
        )
        if self.early_stop is not None:
            # one value for all processes, so that all end in the same step
            (ndcg, *_) = self.processes.collect([metrics["dev_ndcg"]])
            counted = self.early_stop.add(step, ndcg, lambda: weights_of(self.model))
            metrics |= {
                "best_dev_ndcg": counted.best_ndcg,
                "best_step": float(counted.best_step),
                "evaluations_without_gain": float(counted.without_gain),
            }
        _write(journal, step, metrics)
        progress.line(
            f"step {step}, held out: SFT loss {metrics['dev_sft']:.4f}, nDCG@10"
            f" {metrics['dev_ndcg']:.4f}"
        )


def _write(journal: Journal | None, step: int, values: dict[str, float]) -> None:
    """Write a row in the process that has the journal."""
    if journal is not None:
        journal.write(step, **values)


def _logged(sums: dict[str, float]) -> dict[str, float]:
    """A step's row in the journal: means over examples and negatives, then plain sums."""
    row: dict[str, float] = {}
    for name in ("surrogate", "sft", "cl", "positive_weight"):
        row[name] = sums[name] / sums["examples"]
    row["negative_weight"] = sums["negative_weight"] / max(1.0, sums["negatives"])
    for name in ("examples", "negatives", "missing", "tokens", "images"):
        row[name] = sums[name]
    return row


def _norm(norm: Tensor) -> float:
    """A norm as a number, also where it is split among processes."""
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
