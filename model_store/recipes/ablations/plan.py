"""The plan of `gmr ablate`: its runs, and the training job's configuration of each.

Depends on names, bounds and settings, not on a network. Invariant: runs of one plan differ in their
variant and their seed alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model_store.checkpoint import Checkpoint
from model_store.recipes.ablations.comparisons import COMPARISONS
from model_store.recipes.ablations.data import POOL
from model_store.recipes.ablations.variants import Comparison, Variant
from model_store.training.config import TrainConfig, TrainingError

_WARMUP = 0.1
_LEAST_TOKENS = 8192
DATA_SEED = 0
MAX_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class AblationPlan:
    """`steps` steps of `examples` examples for each variant of the comparisons and each seed."""

    base: Checkpoint
    output: Path
    comparisons: tuple[Comparison, ...]
    seeds: int
    steps: int
    examples: int
    rate: float
    queries: int
    precision: Literal["fp32", "bf16"]
    device: Literal["auto", "cpu", "cuda"]
    shared_prefix: bool = False
    """A query is computed once a group in training, for speed: the same gradient to rounding."""

    @property
    def rows(self) -> int:
        """Rows to draw: as many as a run reads, so that none is read twice, up to a bound."""
        return min(self.steps * self.examples, MAX_ROWS)

    def runs(self) -> Iterator[tuple[int, Variant]]:
        """Every seed with every variant, all variants of one seed before the next seed."""
        variants: dict[Variant, None] = {}
        for comparison in self.comparisons:
            variants |= dict.fromkeys(comparison.variants)

        for seed in range(self.seeds):
            for variant in variants:
                yield seed, variant

    def facts(self) -> dict[str, Any]:
        """Facts that all runs share; results with other facts are never combined with these.

        Those of older plans, which shared no prefix, say nothing of it.
        """
        shared = {"shared_prefix": True} if self.shared_prefix else {}
        return shared | {
            "base": self.base.name,
            "base_digest": self.base.digest,
            "benchmark": f"nine-cells-{self.queries}",
            "examples": self.examples,
            "pool": POOL,
            "precision": self.precision,
            "rate": self.rate,
            "rows": self.rows,
            "steps": self.steps,
        }

    def config(self, variant: Variant, seed: int, rows: Path, output: Path) -> TrainConfig:
        """One run; half of its negatives are hard, half random, as in the paper, as far as the
        cells distinguish them."""
        decided = variant.settings()
        return TrainConfig.model_validate(
            {
                "model": str(self.base.folder),
                "output": output,
                "data": {"train": rows, **decided["data"]},
                "template": decided["template"],
                "head": decided["head"],
                "loss": decided["loss"],
                "optimizer": {"learning_rate": self.rate, "warmup": _WARMUP},
                "batch": {
                    "examples": self.examples,
                    "tokens": max(_LEAST_TOKENS, self.base.manifest.max_tokens),
                    "checkpointing": False,
                    "shared_prefix": self.shared_prefix,
                },
                "steps": self.steps,
                "precision": self.precision,
                "device": self.device,
                "seed": seed,
                "save_every": max(1, self.steps // 2),
                "keep": 1,
                "report_every": max(1, self.steps // 2),
            }
        )


def chosen(only: str | None) -> tuple[Comparison, ...]:
    """Comparisons by their names, comma-separated, in their own order; all without `only`. Raises
    `TrainingError`."""
    if only is None:
        return tuple(COMPARISONS.values())

    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in COMPARISONS:
            near = difflib.get_close_matches(name, COMPARISONS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMPARISONS)}."
            raise TrainingError(f"--only: there is no comparison {name[:64]!r}; {hint}")

    return tuple(comparison for comparison in COMPARISONS.values() if comparison.name in names)
