"""`parity.json`: the same golden pairs by every way there is to score them, and how far the ways
are apart.

Knows numbers, not how they came about. Invariant: a record that was written has no deviation above
its tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_store.golden import GoldenPair
from model_store.training.publish.pairs import PublishRefused

PARITY = "parity.json"
TOLERANCE = 1e-3
"""In logits, between two ways that use the same weights in fp32."""
ROUNDING = {"float32": TOLERANCE, "bfloat16": 0.25, "float16": 0.05}
"""In logits, between weights as they were merged and as they are stored. A bfloat16 has 8 bits:
half of the last one, times thousands of weights. This is what half precision costs, not an error,
and it is printed on the card."""


@dataclass(slots=True)
class Parity:
    """Logits by way, and for each way what it is held against."""

    pairs: Sequence[GoldenPair]
    logits: dict[str, list[float]] = field(default_factory=dict)
    deviations: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    """By way: the way it was compared with, the largest deviation, the tolerance."""

    def add(
        self,
        way: str,
        logits: list[float],
        *,
        against: str | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Record a way's logits; raises `PublishRefused` naming the first pair that is too far
        off."""
        self.logits[way] = logits
        if against is None:
            return
        expected = self.logits[against]
        off = [abs(found - other) for found, other in zip(logits, expected, strict=True)]
        for place, distance in enumerate(off):
            if not distance <= tolerance:  # a NaN is not, either
                raise PublishRefused(
                    f"Golden pair {place} ({self.pairs[place].cell}) has logit {logits[place]:.4f}"
                    f" {way}, and {expected[place]:.4f} {against}: {distance:.4f} apart, where"
                    f" {tolerance:g} is allowed."
                )
        self.deviations[way] = (against, max(off), tolerance)

    def write(self, folder: Path, versions: Mapping[str, str]) -> None:
        """Write the record into a folder."""
        record = {
            "schema_version": 1,
            "unit": "logit(yes) - logit(no)",
            "ways": {way: WAYS[way] for way in self.logits},
            "deviations": {
                way: {"against": against, "largest": worst, "tolerance": tolerance}
                for way, (against, worst, tolerance) in self.deviations.items()
            },
            "pairs": [
                {
                    "cell": pair.cell,
                    "logits": {way: logits[place] for way, logits in self.logits.items()},
                }
                for place, pair in enumerate(self.pairs)
            ],
            "versions": dict(versions),
        }
        (folder / PARITY).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


WAYS = {
    "base": "the base alone, transformers, fp32",
    "adapter": "the base with the adapter beside it, transformers, fp32",
    "merged": "the adapter merged into the base, in memory, fp32",
    "rounded": "the same, rounded to the dtype in which it is stored",
    "reloaded": (
        "the published folder, read again, fp32, by the head's two rows as the service does it"
    ),
    "model card": (
        "the published folder by the loop of model cards: chat template, processor, whole"
        " vocabulary, fp32"
    ),
    "vllm": "the published folder by vLLM's pooling runner, fp32",
}
