"""What `gmr ablate` is asked to do, and the training job's configuration for one run of it.

Knows names, bounds and settings, no network. Invariant: a `Plan` that exists is within its bounds;
all runs of a plan differ in their variant and their seed alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model_store.checkpoint import Checkpoint
from model_store.recipes.ablations.data import POOL
from model_store.recipes.ablations.groups import GROUPS
from model_store.recipes.ablations.variants import Group, Variant
from model_store.training.config import TrainConfig, TrainingError

_WARMUP = 0.1
_LEAST_TOKENS = 8192
DATA_SEED = 0
MAX_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """`rows` are drawn for `steps` steps of `examples` each, so that none is seen twice while there
    are enough."""

    base: Checkpoint
    output: Path
    groups: tuple[Group, ...]
    seeds: int
    steps: int
    examples: int
    rate: float
    queries: int
    precision: Literal["fp32", "bf16"]
    device: Literal["auto", "cpu", "cuda"]

    @property
    def rows(self) -> int:
        return min(self.steps * self.examples, MAX_ROWS)

    def runs(self) -> Iterator[tuple[int, Variant]]:
        """Every seed with every variant of the groups; a seed's variants are complete before the
        next seed begins."""
        variants = dict.fromkeys(variant for group in self.groups for variant in group.variants)
        for seed in range(self.seeds):
            for variant in variants:
                yield seed, variant

    def facts(self) -> dict[str, Any]:
        """What all runs have in common; results of other facts are never put together with
        these."""
        return {
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
        """One run. Half of the negatives are hard, half random ones, as in the paper, as far as the
        cells tell them apart."""
        decided = variant.settings()
        return TrainConfig.model_validate(
            {
                "model": str(self.base.folder),
                "output": output,
                "data": {"train": rows, **decided["data"]},
                "head": decided["head"],
                "loss": decided["loss"],
                "optimizer": {"learning_rate": self.rate, "warmup": _WARMUP},
                "batch": {
                    "examples": self.examples,
                    "tokens": max(_LEAST_TOKENS, self.base.manifest.max_tokens),
                    "checkpointing": False,
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


def chosen(only: str | None) -> tuple[Group, ...]:
    """Groups by their names, comma-separated, in their own order; all where none is named. Raises
    `TrainingError`."""
    if only is None:
        return tuple(GROUPS.values())
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in GROUPS:
            near = difflib.get_close_matches(name, GROUPS, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(GROUPS)}."
            raise TrainingError(f"--only: there is no group {name[:64]!r}; {meant}")
    return tuple(group for group in GROUPS.values() if group.name in names)
