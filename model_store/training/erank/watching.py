"""A trainer's steps as this project shows and keeps them: journal, progress, saved states, signals.

Depends on transformers' callbacks, not on a method. Invariant: a step is in the journal once, and a
run that a signal ended has saved the state of its last step.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from model_store.training.config import TrainingError
from model_store.training.erank.checkpoints import complete
from model_store.training.journal import Journal
from model_store.training.not_finite import NotFinite
from model_store.training.progress import ProgressLog

Row = Callable[[Mapping[str, Any]], dict[str, float] | None]
"""A trainer's log as a row of the journal; None for a log that is of no step."""


@dataclass
class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Follows one run; `shown` names the value that the progress shows."""

    journal: Journal
    progress: ProgressLog
    states: Path
    facts: Mapping[str, Any]
    row: Row
    shown: str
    signals: Sequence[int]
    _began: float = field(default_factory=time.monotonic)
    _tokens: float = 0.0

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """End the run after this step, with its state saved, where a signal asks for it."""
        if self.signals:
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write a step's row; raises `NotFinite` before anything is saved of a broken step."""
        row = self.row(logs or {})
        if row is None:
            return
        for name in ("loss", "gradient"):
            if not math.isfinite(row.get(name, 0.0)):
                raise NotFinite(f"Step {state.global_step}: the {name} is not finite.")

        now = time.monotonic()
        seconds, self._began = now - self._began, now
        tokens = row.pop("tokens_seen", 0.0)
        row["tokens"], self._tokens = max(0.0, tokens - self._tokens), tokens
        row["seconds"] = seconds
        self.journal.write(state.global_step, **row)
        self.progress.step(
            state.global_step,
            loss=row[self.shown],
            tokens=row["tokens"],
            seconds=seconds,
            name=self.shown,
        )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note that the checkpoint is whole."""
        complete(self.states, state.global_step, self.facts)


def stopped_by(signals: Sequence[int]) -> int:
    """The signal that ended a run, SIGTERM before SIGINT."""
    return signal.SIGTERM if signal.SIGTERM in signals else signals[0]


def refuse_several_processes(world: int) -> None:
    """Raise `TrainingError` where torchrun started more than one process."""
    if world > 1:
        raise TrainingError(
            f"{world} processes were started, and ERank's stages run in one: all answers to a query"
            " are rewarded together, by one process."
        )
