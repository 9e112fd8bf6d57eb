"""The configuration of a training run: frozen, read from a YAML file, checked as a whole.

Depends on names and bounds, not on data or a network. Invariant: a `TrainConfig` that exists is
within its bounds and has no unknown key.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.training import config_files
from model_store.training.distillation import Distillation
from model_store.training.losses import Direction, Weight

SHIPPED_CONFIGS = Path(__file__).parent / "configs"
_MAX_PROBLEMS = 20

Run = TypeVar("Run", bound=BaseModel)
"""The configuration of one kind of run."""


class TrainingError(Exception):
    """A run that cannot begin or continue; the text is one sentence for the user."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """The rows, and how an example becomes a group of one positive and some negatives."""

    train: Path
    dev: Path | None = None
    negatives: int = Field(16, ge=1, le=128, description="Of each example, drawn anew every epoch.")
    random_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Of the negatives that are random ones; the others are hard ones.",
    )
    max_tokens: int | None = Field(
        None, ge=64, le=2**17, description="Of a pair; None: the checkpoint's own limit."
    )
    workers: int = Field(
        0, ge=0, le=64, description="Processes that read and render ahead of the network."
    )


class HeadConfig(_Section):
    """The rows that turn a final hidden state into logits."""

    kind: Literal["tokens", "trainable", "random"] = Field(
        "tokens", description="Frozen label rows, free ones, or learnt anew."
    )
    tokens: Literal[2, 4, 8, 16] = Field(
        2, description="How many words the softmax is over (figure 4)."
    )
    words: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] | None = Field(
        None, max_length=64
    )

    @model_validator(mode="after")
    def _consistent(self) -> HeadConfig:
        if self.words is not None and len(set(self.words)) != len(self.words):
            raise ValueError("words must name each word once")
        if self.kind == "random" and (self.tokens != 2 or self.words is not None):
            raise ValueError("a random head has two rows and no words")
        return self


class LoraConfig(_Section):
    """The low-rank maps, and the modules that have one."""

    rank: int = Field(16, ge=1, le=1024)
    alpha: int = Field(32, ge=1, le=4096)
    dropout: float = Field(0.0, ge=0, le=0.9)
    target: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description=(
            "A regular expression for whole module names; None: every linear map of the language"
            " model's layers."
        ),
    )
    vision: bool = Field(
        False,
        description="Whether the vision tower may be among them; vLLM serves no such adapter.",
    )
    lm_head: bool = Field(
        False, description="Whether the vocabulary's head may be; vLLM serves no such adapter."
    )


class TeacherConfig(_Section):
    """A loss towards the rows' `teacher_scores`, added to the paper's; it is not the paper's."""

    kind: Distillation
    weight: float = Field(1.0, gt=0, le=1000)
    temperature: float = Field(
        1.0, gt=0, le=1000, description="The teacher's scores are divided by it."
    )


class LossConfig(_Section):
    """The unified reranking loss (paper, algorithm 1)."""

    weight: Weight = "sft"
    direction: Direction = "sft"
    tau: float | None = Field(
        None, gt=0, lt=1, description="The mask of base_masked; that weight alone has one."
    )
    beta: float = Field(0.05, gt=0, le=100)
    weight_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    teacher: TeacherConfig | None = Field(
        None, description="A loss towards the rows' teacher_scores; None: the paper's loss alone."
    )

    @model_validator(mode="after")
    def _consistent(self) -> LossConfig:
        if (self.tau is not None) != (self.weight == "base_masked"):
            raise ValueError("tau goes with the weight base_masked, and that weight needs it")
        return self


class OptimizerConfig(_Section):
    """AdamW and its learning rate over time."""

    learning_rate: float = Field(1e-4, gt=0, le=1)
    weight_decay: float = Field(0.0, ge=0, le=1)
    clip: float = Field(
        1.0, gt=0, le=1e6, description="The largest norm a step's gradient may have."
    )
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(
        0.05, ge=0, le=1, description="Share of all steps in which the rate rises from 0."
    )


class BatchConfig(_Section):
    """The examples of one step, and the tokens of one forward pass."""

    examples: int = Field(
        64, ge=1, le=2**16, description="Of one step, over all processes together."
    )
    tokens: int = Field(
        65_536, ge=64, le=2**24, description="Of one forward pass in one process, padding included."
    )
    checkpointing: bool = Field(
        True, description="Compute activations twice instead of keeping them."
    )
    shared_prefix: bool = Field(
        False, description="Compute instruction and query once a group; the gradient is the same."
    )


class EarlyStopConfig(_Section):
    """The end of a run by nDCG@10 of data.dev; the best state is then the one that is left."""

    patience: int = Field(
        5, ge=1, le=1000, description="Evaluations in a row without a gain, after which it ends."
    )
    least_gain: float = Field(
        0.0, ge=0, lt=1, description="Of nDCG@10, from 0 to 1, for an evaluation to be a gain."
    )


class TrainConfig(_Section):
    """One run of `gmr train`. Paths are relative to the folder the command runs in."""

    model: str = Field(
        min_length=1, max_length=1024, description="A registry name, a folder, or a hub id."
    )
    revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="The commit of a hub model."
    )
    template: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="Such as document-first, if the family has it; None: the base's own."
    )
    output: Path
    data: DataConfig
    head: HeadConfig = HeadConfig()
    lora: LoraConfig = LoraConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batch: BatchConfig = BatchConfig()
    epochs: float = Field(1.0, gt=0, le=1000)
    steps: int | None = Field(None, ge=1, le=10**7, description="Instead of epochs.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description=(
            "Of frozen weights and products; adapter and head are fp32. auto: bf16 where the"
            " machine has it."
        ),
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="Of several processes; fsdp splits the weights among them."
    )
    seed: int = Field(0, ge=0, lt=2**32)
    save_every: int = Field(200, ge=1, le=10**7, description="Steps between saved states.")
    keep: int = Field(2, ge=1, le=100, description="Saved states that are kept.")
    evaluate_every: int = Field(500, ge=1, le=10**7, description="Steps between looks at data.dev.")
    evaluate_examples: int = Field(
        500, ge=1, le=10**6, description="Of data.dev, from its beginning."
    )
    report_every: int = Field(
        10, ge=1, le=10**6, description="Steps between lines where there is no terminal."
    )
    early_stop: EarlyStopConfig | None = Field(
        None, description="None: all steps are made, and the last state is left."
    )
    tensorboard: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        words = self.head.tokens if self.head.words is None else len(self.head.words)
        if words > 2 and (self.loss.weight, self.loss.direction) != ("sft", "sft"):
            raise ValueError(
                "a head of more than two words classifies (figure 4): it needs loss.weight and"
                " loss.direction sft"
            )
        if words < 2:
            raise ValueError("head.words needs two words at least")
        if self.early_stop is not None and self.data.dev is None:
            raise ValueError("early_stop needs data.dev, whose nDCG@10 ends the run")

        return self

    def decisive_settings(self) -> dict[str, Any]:
        """Settings that decide the weights, by dotted key; the others may change at a resume.

        With an early stop, the evaluations decide them too. A setting younger than the first runs
        is absent where it is off, as in their states.
        """
        free = {
            "output",
            "data.workers",
            "data.dev",
            "device",
            "strategy",
            "save_every",
            "keep",
            "report_every",
            "tensorboard",
        }
        if self.early_stop is None:
            free |= {"evaluate_every", "evaluate_examples"}
        if self.loss.teacher is None:
            free.add("loss.teacher")
        if not self.batch.shared_prefix:
            free.add("batch.shared_prefix")
        settings = config_files.flat(self.model_dump(mode="json"))
        return {key: value for key, value in settings if key not in free}


def load_config(name: str, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a YAML file, or a shipped configuration by its name.

    `overrides` are `dotted.key=value`, the value in YAML. Raises `TrainingError` with a line for
    each problem.
    """
    return validated(TrainConfig, *read_settings(name, overrides))


def read_settings(name: str, overrides: Iterable[str]) -> tuple[Path, dict[Any, Any]]:
    """The file of a configuration, and its values with the overrides; raises `TrainingError`."""
    path = SHIPPED_CONFIGS / f"{name}.yaml"
    if not name.replace("-", "_").isidentifier() or not path.is_file():
        path = Path(name)

    try:
        values = config_files.read_values(path)
        for override in overrides:
            config_files.set_value(values, override)
    except config_files.SettingsUnreadable as error:
        raise TrainingError(str(error)) from None
    except FileNotFoundError:
        shipped = ", ".join(sorted(config.stem for config in SHIPPED_CONFIGS.glob("*.yaml")))
        raise TrainingError(
            f"{path}: there is no such readable file, and the shipped configurations are {shipped}."
        ) from None
    return path, values


def validated(kind: type[Run], path: Path, values: dict[Any, Any]) -> Run:
    """The values of a file as a configuration; raises `TrainingError`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = error.errors()[:_MAX_PROBLEMS]
        lines = [f"{path}: {config_files.problem_sentence(kind, problem)}" for problem in problems]
        raise TrainingError("\n".join(lines)) from None
