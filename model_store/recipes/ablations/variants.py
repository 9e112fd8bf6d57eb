"""What a comparison is made of: variants of one training run, and tables and differences over them.

Knows settings and names, no data and no results. Invariant: variants of one name are the same, and
a variant differs from the paper's standard run in what its name says and in nothing else; so what
several comparisons share is trained once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from model_store.training.losses import Direction, Weight

WORDS = (
    "yes", "no", "No", "true", "false", "maybe", "The", "None", "In", "good", "This", "To", "Not",
    "not", "There", "-no",
)  # fmt: skip
"""Figure 4's words in the paper's order (appendix B.3); for "Yes", "NO", "YES" and "Answer", which
are no tokens of gmr-tiny's vocabulary, stand four others."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train. The defaults are the SFT of the paper's section 4."""

    weight: Weight = "sft"
    direction: Direction = "sft"
    tau: float | None = None
    weight_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    head: Literal["tokens", "trainable", "random"] = "tokens"
    words: Literal[2, 4, 8, 16] = 2
    negatives: int = 4

    @property
    def name(self) -> str:
        """Weight and direction, and whatever else is not as usual; good for a file."""
        unusual = [
            each.name for each in fields(self)[2:] if getattr(self, each.name) != each.default
        ]
        return "-".join(
            [self.weight, self.direction, *(f"{name}_{getattr(self, name)}" for name in unusual)]
        )

    def settings(self) -> dict[str, dict[str, Any]]:
        """The parts of a `TrainConfig` that it decides."""
        loss = {
            "weight": self.weight,
            "direction": self.direction,
            "tau": self.tau,
            "weight_dtype": self.weight_dtype,
        }
        words = {} if self.words == 2 else {"words": WORDS[: self.words]}
        return {
            "loss": loss,
            "head": {"kind": self.head, **words},
            "data": {"negatives": self.negatives},
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and what the paper prints there."""

    label: str
    variant: Variant
    paper: float | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one variant to another, and what the paper prints of it."""

    label: str
    before: Variant
    after: Variant
    paper: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One comparison; `printed` says where the paper has it, `note` what is needed to read it."""

    name: str
    title: str
    printed: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    note: str = ""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(row.variant for row in self.rows))
