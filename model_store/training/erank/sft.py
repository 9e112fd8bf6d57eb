"""Stage 1: supervised fine-tuning on generated thoughts and numbers.

Depends on token ids and TRL's trainer, not on rows. Invariant: the loss is on answers alone, and
every answered pair of the rows is learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig as PeftSettings

from model_store.files import sha256
from model_store.training.erank.config import GeneratedRun
from model_store.training.erank.pairs import PairRenderer, TaughtPair, taught_pairs
from model_store.training.erank.trainers import open_tokenizer, sft_trainer
from model_store.training.progress import ProgressLog


@dataclass(frozen=True, slots=True)
class SftStage:
    """The first stage with its pairs."""

    run: GeneratedRun
    renderer: PairRenderer
    taught: list[TaughtPair]
    shown: str = "loss"

    @property
    def pairs(self) -> int:
        return len(self.taught)

    @property
    def steps(self) -> int:
        by_epochs = max(1, round(self.run.epochs * len(self.taught) / self.run.batch.pairs))
        return self.run.steps or by_epochs

    @property
    def facts(self) -> dict[str, Any]:
        return {"answers": sha256(self.run.data.answers), "pairs": len(self.taught)}

    def trainer(self, network: Any, maps: PeftSettings, states: Path, progress: ProgressLog) -> Any:
        tokenizer = open_tokenizer(self.renderer.folder, self.renderer.end)
        return sft_trainer(
            self.run,
            network,
            tokenizer,
            pairs=self.taught,
            maps=maps,
            states=states,
            steps=self.steps,
        )

    def row(self, logs: Mapping[str, Any]) -> dict[str, float] | None:
        if "loss" not in logs:
            return None
        return {
            "loss": float(logs["loss"]),
            "accuracy": float(logs.get("mean_token_accuracy", 0.0)),
            "gradient": float(logs.get("grad_norm", 0.0)),
            "rate": float(logs.get("learning_rate", 0.0)),
            "tokens_seen": float(logs.get("num_tokens", 0.0)),
        }


def open_stage(run: GeneratedRun, renderer: PairRenderer) -> SftStage:
    """The stage with its pairs as token ids; raises `DataError`."""
    return SftStage(run, renderer, taught_pairs(renderer, run.data))
