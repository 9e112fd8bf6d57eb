"""Losses, gradients and logits that are not finite: an error that names their rows.

Depends on names of rows and on the processes, not on a network. Invariant: all processes raise
together, and each names the rows of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from model_store.training.config import TrainingError
from model_store.training.processes import Processes

_MAX_NAMED = 20
"""Rows that an error names at most."""


class NotFinite(TrainingError):
    """A loss, a gradient or a held-out logit that is not a finite number. No step was made from it,
    and no state is saved after it."""


def refuse_not_finite(processes: Processes, rows: Sequence[str], problem: str) -> NoReturn:
    """Raise `NotFinite` that names the rows of all processes."""
    named = processes.collect(list(rows))
    more = f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    raise NotFinite(f"{problem}; the examples are {', '.join(named[:_MAX_NAMED])}{more}.")
