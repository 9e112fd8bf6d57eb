"""Isolation of pairs that the network fails for: a failing batch is halved until they are found.

Depends on rows and functions over them, not on tensors. Invariant: a row has no logit only where
the network failed for that row alone while it still scored a pair known to work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

Row = TypeVar("Row")
Result = TypeVar("Result")

MAX_LOGIT = 1e30
"""Logits beyond this are an error: no working network comes near, and replies cannot hold them."""


def attempt(work: Callable[[], Result], works: Callable[[], bool]) -> Result | None:
    """Run `work`; returns None where it fails and `works` reports that the network still works.

    Raises the exception of `work` where the network no longer works.
    """
    try:
        return work()
    except Exception as failure:  # the network documents no narrower kind
        # the traceback's frames would keep the failed pass's tensors alive
        cause = failure.with_traceback(None)

    if not works():
        raise cause
    return None


def isolated(
    rows: Sequence[Row], score: Callable[[Sequence[Row]], list[float]], works: Callable[[], bool]
) -> list[float | None]:
    """The logit of each row, or None for a row that the network fails for.

    Raises as `attempt` does.
    """
    logits = attempt(partial(score, rows), works)
    if logits is not None:
        return [logit if is_logit(logit) else None for logit in logits]
    if len(rows) == 1:
        return [None]

    middle = len(rows) // 2
    return [*isolated(rows[:middle], score, works), *isolated(rows[middle:], score, works)]


def is_logit(value: float) -> bool:
    """True for a number that can be a score: finite, and at most `MAX_LOGIT` in size."""
    return math.isfinite(value) and abs(value) <= MAX_LOGIT
