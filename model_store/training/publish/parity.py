"""`parity.json`: the golden pairs by every way to score them, and how far the ways differ.

Depends on numbers, not on networks. Invariant: a record that was written has no deviation above its
tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_store.families.readout import ReadOut
from model_store.golden import GoldenPair
from model_store.training.publish.pairs import PublishRefused

PARITY = "parity.json"
TOLERANCE = 1e-3
"""In logits, between two ways that use the same weights in fp32."""
PREDICT_TOLERANCE = 1e-4
"""In logits, between the service's own arithmetic and that of sentence-transformers."""
ROUNDING = {"float32": TOLERANCE, "bfloat16": 0.25, "float16": 0.05}
"""In logits, between weights as they were merged and as they are stored. A bfloat16 has 8 bits, and
thousands of weights are each rounded to half of the last one. This is the cost of half precision,
not an error, and the card states it."""
WAYS = {
    "base": "the base alone, transformers, fp32",
    "adapter": "the base with the adapter beside it, transformers, fp32",
    "merged": "the adapter merged into the base, in memory, fp32",
    "rounded": "the same, rounded to the dtype in which it is stored",
    "reloaded": (
        "the published folder, read again, fp32, by the head's two rows as the service does it"
    ),
    "read again": "the published folder, read again, fp32, answers token by token",
    "model card": (
        "the published folder by the loop of model cards: chat template, processor, whole"
        " vocabulary, fp32"
    ),
    "sentence-transformers": (
        "the published folder by `CrossEncoder.predict` of sentence-transformers, fp32"
    ),
    "vllm": "the published folder by vLLM's pooling runner, fp32",
    "vllm serve": "the published folder by vLLM's server, started as the model card says, fp32",
}


@dataclass(slots=True)
class Parity:
    """Logits by way, and for each way the one that it was compared with."""

    pairs: Sequence[GoldenPair]
    readout: ReadOut
    logits: dict[str, Sequence[float | None]] = field(default_factory=dict)
    """None for a pair that a way cannot be asked for."""
    deviations: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    """By way: the way it was compared with, the largest deviation, the tolerance."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of programs that computed logits, by name."""

    def add(
        self,
        way: str,
        logits: Sequence[float | None],
        *,
        against: str | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Record a way's logits; raises `PublishRefused` naming the first pair that differs by
        more than the tolerance."""
        self.logits[way] = logits
        if against is None:
            return

        largest = 0.0
        for number, (found, due) in enumerate(zip(logits, self.logits[against], strict=True)):
            if found is None or due is None:
                continue
            distance = abs(found - due)
            if not distance <= tolerance:  # true for a NaN, too
                raise PublishRefused(
                    f"Golden pair {number} ({self.pairs[number].cell}) has logit"
                    f" {found:.4f} {way}, and {due:.4f} {against}:"
                    f" {distance:.4f} apart, where {tolerance:g} is allowed."
                )
            largest = max(largest, distance)
        self.deviations[way] = (against, largest, tolerance)

    def keep(self, numbers: Sequence[int]) -> None:
        """Keep the pairs of these numbers alone."""
        self.pairs = [self.pairs[number] for number in numbers]
        for way, logits in self.logits.items():
            self.logits[way] = [logits[number] for number in numbers]

    def write(self, folder: Path) -> None:
        """Write the record into a folder."""
        deviations = {}
        for way, (against, largest, tolerance) in self.deviations.items():
            deviations[way] = {"against": against, "largest": largest, "tolerance": tolerance}
        pairs = []
        for number, pair in enumerate(self.pairs):
            logits = {way: values[number] for way, values in self.logits.items()}
            pairs.append({"cell": pair.cell, "logits": logits})

        record = {
            "schema_version": 1,
            "unit": unit_of(self.readout),
            "ways": {way: WAYS[way] for way in self.logits},
            "deviations": deviations,
            "pairs": pairs,
            "versions": dict(self.versions),
        }
        (folder / PARITY).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def unit_of(readout: ReadOut) -> str:
    """A raw score in logits of words, such as logit(yes) - logit(no)."""
    return " - ".join(f"logit({label})" for label in readout.labels) or readout.name
