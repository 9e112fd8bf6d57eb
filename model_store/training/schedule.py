"""The learning rate at a step: a function of the step alone, so that nothing of it needs saving."""

from __future__ import annotations

import math

from model_store.training.config import OptimizerConfig


def rate(step: int, steps: int, settings: OptimizerConfig) -> float:
    """The rate of `step` (from 1) of `steps`: it rises evenly while it warms up, and then stays or
    falls towards 0."""
    warmup = round(settings.warmup * steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    fallen = (step - 1 - warmup) / max(1, steps - warmup)
    shares = {"constant": 1.0, "linear": 1 - fallen, "cosine": (1 + math.cos(math.pi * fallen)) / 2}
    return settings.learning_rate * shares[settings.schedule]
