"""Judged pairs with known probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_store.calibration.judged_pairs import Floats, JudgedPairs, judged_pairs


def drawn(
    truth: Callable[[Floats], Floats], queries: int, documents: int = 10, seed: int = 0
) -> JudgedPairs:
    """Pairs whose scores are normal, and that are relevant with the probability `truth`."""
    generator = np.random.default_rng(seed)
    judged = []
    for _ in range(queries):
        scores = generator.normal(0, 3, documents)
        relevant = generator.random(documents) < truth(scores)
        judged.append((scores.tolist(), relevant.tolist()))
    return judged_pairs(judged)
