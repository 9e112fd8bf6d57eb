"""The steps of a run: learn, log, look at what is held out, save, and stop where a signal or a
broken number says so.

Knows the order of things within a step, none of their details. Invariant: an optimizer step is made
only from a finite gradient that all processes share, and a state is saved only after a whole step.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from model_store.training import state
from model_store.training.batches import Unit
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.gradient import SUMS, Learner
from model_store.training.heldout import look
from model_store.training.journal import Journal
from model_store.training.order import Order, Steps
from model_store.training.processes import Processes, moments_of, weights_of
from model_store.training.progress import Bar
from model_store.training.schedule import rate
from model_store.training.sources import Sources

STATES = "states"
_NAMED = 20
"""Groups that a sentence names at most."""


class Stopped(Exception):
    """A run that a signal ended after a step whose state is saved; started again, it goes on from
    there."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"Stopped by {signal.Signals(number).name} after step {step}; the same command goes on"
            " from there."
        )
        self.exit_code = 128 + number


class NotFinite(TrainingError):
    """A loss or a gradient that is no finite number; nothing was learnt from it, and nothing is
    saved after it."""


@dataclass(slots=True)
class Loop:
    """A model in training. `heard` holds the signals that came; `facts` say which run a state
    belongs to."""

    config: TrainConfig
    processes: Processes
    sources: Sources
    model: nn.Module
    optimizer: torch.optim.Optimizer
    facts: dict[str, Any]
    heard: Sequence[int]

    def run(self, done: int, steps: int, bar: Bar) -> None:
        """Steps `done` + 1 to `steps`; raises `Stopped`, `NotFinite`, `TrainingError` and
        `DataError`."""
        config, processes, sources = self.config, self.processes, self.sources
        order = Order(len(sources.examples), config.batch.examples, config.seed)
        learner = Learner(self.model, config.loss, processes, config.seed)
        made = Steps(
            sources.examples,
            sources.grouper,
            order,
            processes.share,
            budget=config.batch.tokens,
            image_token=sources.family.image_token_id,
        )
        journal = None
        if processes.leads:
            journal = Journal(config.output, done, tensorboard=config.tensorboard)
        began = time.monotonic()
        try:
            for step, units in made.between(done + 1, steps, config.data.workers, processes.agree):
                row, stop = self._step(learner, units, step, steps)
                row["seconds"], began = time.monotonic() - began, time.monotonic()
                if journal is not None:
                    journal.write(step, **row)
                bar.step(step, loss=row["sft"], tokens=row["tokens"], seconds=row["seconds"])
                if sources.dev is not None and (step % config.evaluate_every == 0 or step == steps):
                    self._look(learner, step, journal, bar)
                if step % config.save_every == 0 or step == steps or stop:
                    self.save(step)
                if stop:
                    raise Stopped(stop, step)
        finally:
            if journal is not None:
                journal.close()

    def save(self, step: int) -> None:
        """Save the state after a step; one process writes, and what it cannot write stops all."""
        weights, moments = weights_of(self.model), moments_of(self.model, self.optimizer)
        folder, keep = self.config.output / STATES, self.config.keep
        self.processes.alone(
            lambda: state.save(folder, step, self.facts, weights, moments, keep=keep)
        )

    def _step(
        self, learner: Learner, units: Sequence[Unit], step: int, steps: int
    ) -> tuple[dict[str, float], int]:
        """Learn from a step's units; gives what is logged of it, and the signal that came
        meanwhile, or 0."""
        examples, settings = self.config.batch.examples, self.config.optimizer
        tally = learner.learn(units, step, examples)
        trained = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        norm = _whole(nn.utils.clip_grad_norm_(trained, settings.clip))
        signals = [float(signal.SIGTERM in self.heard), float(signal.SIGINT in self.heard)]
        values = [tally.sums[name] for name in SUMS]
        *totals, terminated, interrupted, broken = self.processes.total(
            [*values, *signals, float(len(tally.broken))]
        )
        if broken:
            self._refuse(tally.broken, f"Step {step}: the loss is not finite")
        if not math.isfinite(norm):
            named = [name for unit in units for name in unit.names]
            self._refuse(named, f"Step {step}: the gradient is not finite")
        for group in self.optimizer.param_groups:
            group["lr"] = rate(step, steps, settings)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        sums = dict(zip(SUMS, totals, strict=True))
        row = {
            name: sums[name] / sums["examples"]
            for name in ("surrogate", "sft", "cl", "positive_weight")
        }
        row["negative_weight"] = sums["negative_weight"] / max(1.0, sums["negatives"])
        row |= {
            name: sums[name] for name in ("examples", "negatives", "missing", "tokens", "images")
        }
        row |= {"rate": rate(step, steps, settings), "gradient": norm}
        return row, signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0

    def _refuse(self, groups: list[str], what: str) -> NoReturn:
        named = self.processes.collect(groups)
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        raise NotFinite(f"{what}; the examples are {', '.join(named[:_NAMED])}{more}.")

    def _look(self, learner: Learner, step: int, journal: Journal | None, bar: Bar) -> None:
        assert self.sources.dev is not None
        found = look(
            self.model,
            learner,
            self.processes,
            self.sources.dev,
            self.sources.grouper,
            count=self.config.evaluate_examples,
            budget=self.config.batch.tokens,
            image_token=self.sources.family.image_token_id,
            direction=self.config.loss.direction,
        )
        if journal is not None:
            journal.write(step, **found)
        bar.say(
            f"step {step}, held out: SFT loss {found['dev_sft']:.4f}, nDCG@10"
            f" {found['dev_ndcg']:.4f}"
        )


def _whole(norm: Tensor) -> float:
    """A norm, also one that is split among processes."""
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
