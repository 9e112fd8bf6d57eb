"""The configurations of ERank's two stages: frozen, read from a YAML file, checked as a whole.

Depends on names and bounds, not on data or a network. Invariant: as in `model_store.training`: a
configuration that exists is within its bounds and has no unknown key. Defaults are the paper's, as
far as it has them (arXiv 2509.00520).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_store.training.config import LoraConfig, OptimizerConfig
from model_store.training.config_files import flat
from model_store.training.erank.rewards import RewardConfig

_FREE = {"output", "device", "save_every", "keep", "report_every", "tensorboard"}
"""Settings that do not decide the weights."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AnswerData(_Section):
    """The rows, and the answers that are taught."""

    train: Path
    answers: Path = Field(description="Generated answers to pairs of the rows.")
    max_tokens: int | None = Field(
        None, ge=64, le=2**17, description="Of a prompt; None: the checkpoint's own limit."
    )
    max_answer_tokens: int = Field(
        2048, ge=8, le=2**15, description="Of an answer; a longer one is refused by its line."
    )


class PairBatch(_Section):
    """The pairs of one step, and those of one forward pass."""

    pairs: int = Field(64, ge=1, le=2**16)
    pairs_at_once: int = Field(
        8, ge=1, le=2**12, description="Of one forward pass; pairs must be a multiple of it."
    )
    checkpointing: bool = Field(
        True, description="Compute activations twice instead of keeping them."
    )

    @model_validator(mode="after")
    def _consistent(self) -> PairBatch:
        if self.pairs % self.pairs_at_once:
            raise ValueError("pairs must be a multiple of pairs_at_once")
        return self


class QueryData(_Section):
    """The rows, and the documents of each that are a step."""

    train: Path
    documents: int = Field(
        20, ge=2, le=1000, description="Of a query (N): its positives, then negatives drawn once."
    )
    max_tokens: int | None = Field(
        None, ge=64, le=2**17, description="Of a prompt; None: the checkpoint's own limit."
    )


class RolloutConfig(_Section):
    """The answers that are sampled in a step."""

    answers: int = Field(5, ge=2, le=256, description="To each prompt (G).")
    temperature: float = Field(1.0, gt=0, le=10)
    max_tokens: int = Field(2048, ge=8, le=2**15, description="Of an answer.")
    answers_at_once: int = Field(
        4, ge=1, le=2**12, description="Of one forward pass; N x G must be a multiple of it."
    )
    checkpointing: bool = Field(
        True, description="Compute activations twice instead of keeping them."
    )


class Lora(LoraConfig):
    """The low-rank maps, in the paper's sizes of the first stage."""

    rank: int = Field(32, ge=1, le=1024)
    alpha: int = Field(64, ge=1, le=4096)


class _Run(_Section):
    model: str = Field(
        min_length=1, max_length=1024, description="A registry name, a folder, or a hub id."
    )
    revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="The commit of a hub model."
    )
    family: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="Of a model without a manifest, such as Qwen3 itself: erank."
    )
    output: Path
    lora: Lora = Lora()
    epochs: float = Field(1.0, gt=0, le=1000)
    steps: int | None = Field(None, ge=1, le=10**7, description="Instead of epochs.")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(0, ge=0, lt=2**32)
    save_every: int = Field(200, ge=1, le=10**7, description="Steps between saved states.")
    keep: int = Field(2, ge=2, le=100, description="Saved states that are kept.")
    report_every: int = Field(
        10, ge=1, le=10**6, description="Steps between lines where there is no terminal."
    )
    tensorboard: bool = False

    def decisive_settings(self) -> dict[str, Any]:
        """Settings that decide the weights, by dotted key; the others may change at a resume."""
        return {key: value for key, value in flat(self.model_dump(mode="json")) if key not in _FREE}


class GeneratedRun(_Run):
    """Stage 1: the language-model loss on generated thoughts and numbers."""

    method: Literal["sft-generated"]
    data: AnswerData
    optimizer: OptimizerConfig = OptimizerConfig()
    batch: PairBatch = PairBatch()


class GrpoRun(_Run):
    """Stage 2: GRPO with a reward from the ranks of all answers to a query."""

    method: Literal["grpo"]
    data: QueryData
    rollouts: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    kl: float = Field(0.001, ge=0, le=100, description="Weight of the distance from stage 1.")
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-6)
    epochs: float = Field(10.0, gt=0, le=1000)
    constant_steps: int = Field(
        20,
        ge=1,
        le=10**6,
        description="First steps of which one must have a reward that varies, or the run ends.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> GrpoRun:
        if (self.data.documents * self.rollouts.answers) % self.rollouts.answers_at_once:
            raise ValueError(
                "data.documents x rollouts.answers must be a multiple of rollouts.answers_at_once"
            )
        return self


ErankRun = GeneratedRun | GrpoRun
