"""Arithmetic and files that the reports of all benchmarks share.

Does not depend on how a number was measured. Invariant: a report is one JSON object in one file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

AGREEMENT = {"float32": 1e-3, "bfloat16": 0.15}
"""Largest difference between two logits of one pair that counts as agreement, by the coarser
dtype of the two."""


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def largest_difference(pairs: Sequence[tuple[float, float]]) -> float:
    """The largest difference between the two logits of a pair; infinite where one is not a number,
    0 where there are no pairs."""
    largest = 0.0
    for one, other in pairs:
        difference = abs(one - other)
        largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest


def write_report(report: Mapping[str, Any], output: Path) -> None:
    """Write a report as JSON."""
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
