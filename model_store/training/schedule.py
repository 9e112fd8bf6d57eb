"""The learning rate of a step: a function of the step alone, so a saved state need not hold it."""

from __future__ import annotations

import math

from model_store.training.config import OptimizerConfig


def learning_rate(step: int, steps: int, settings: OptimizerConfig) -> float:
    """The rate of `step` (from 1) of `steps`.

    It rises evenly during the warm-up, and then stays or falls towards 0, as the schedule says.
    """
    warmup = round(settings.warmup * steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup

    progress = (step - 1 - warmup) / max(1, steps - warmup)
    match settings.schedule:
        case "constant":
            share = 1.0
        case "linear":
            share = 1 - progress
        case "cosine":
            share = (1 + math.cos(math.pi * progress)) / 2
    return settings.learning_rate * share
