"""A pair that the network cannot score fails alone: its batch is halved until it is found.

Knows rows and functions over them, no tensors. Invariant: a row is without a logit only if the
network failed for it alone, and did not fail for a pair that is known to be good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

Row = TypeVar("Row")
Result = TypeVar("Result")

MOST_LOGIT = 1e30
"""No network that works comes near, and no reply holds larger ones."""


def attempt(work: Callable[[], Result], works: Callable[[], bool]) -> Result | None:
    """`work`'s result, None where it failed. Where `works` says that nothing works, raises what
    `work` raised."""
    try:
        return work()
    except Exception as failure:  # of any kind: a network documents none
        # whose frames hold on to the tensors of the pass that failed
        cause = failure.with_traceback(None)
    if not works():
        raise cause
    return None


def isolated(
    rows: Sequence[Row], score: Callable[[Sequence[Row]], list[float]], works: Callable[[], bool]
) -> list[float | None]:
    """`score`'s logit for each row, None for a row that has none; raises as `attempt` does."""
    logits = attempt(partial(score, rows), works)
    if logits is not None:
        return [logit if is_logit(logit) else None for logit in logits]
    if len(rows) == 1:
        return [None]
    middle = len(rows) // 2
    return [*isolated(rows[:middle], score, works), *isolated(rows[middle:], score, works)]


def is_logit(value: float) -> bool:
    """Whether a number can be a score."""
    return math.isfinite(value) and abs(value) <= MOST_LOGIT
