"""Parts of a comparison: variants of one training run, and rows and differences over them.

Depends on settings and names, not on data or results. Invariant: variants of one name are equal,
and a variant differs from the paper's standard run in what its name states and in nothing else. A
variant that several comparisons share is therefore trained once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from model_store.training.losses import Direction, Weight

WORDS = (
    "yes", "no", "No", "true", "false", "maybe", "The", "None", "In", "good", "This", "To", "Not",
    "not", "There", "-no",
)  # fmt: skip
"""Figure 4's words in the paper's order (appendix B.3). Four others replace "Yes", "NO", "YES" and
"Answer", which are no tokens of gmr-tiny's vocabulary."""


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
    template: str | None = None

    @property
    def name(self) -> str:
        """Weight, direction and all settings that are not the default; fit for a file's name."""
        parts: list[str] = [self.weight, self.direction]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(f"{field.name}_{value}")
        return "-".join(parts)

    def settings(self) -> dict[str, Any]:
        """The sections of a `TrainConfig` that the variant decides, and the template."""
        head: dict[str, Any] = {"kind": self.head}
        if self.words != 2:
            head["words"] = WORDS[: self.words]
        return {
            "loss": {
                "weight": self.weight,
                "direction": self.direction,
                "tau": self.tau,
                "weight_dtype": self.weight_dtype,
            },
            "head": head,
            "data": {"negatives": self.negatives},
            "template": self.template,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, and the number that the paper prints there."""

    label: str
    variant: Variant
    paper: float | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """The change from one variant to another, and the number that the paper prints of it."""

    label: str
    before: Variant
    after: Variant
    paper: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One of the paper's comparisons; `printed` is its place in the paper, `note` explains it."""

    name: str
    title: str
    printed: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    note: str = ""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants of all rows, each once, in order."""
        return tuple(dict.fromkeys(row.variant for row in self.rows))
