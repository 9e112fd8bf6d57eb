"""Turns of a worker: as many as are always granted, whatever they cost, so that it never idles.

Depends on what a worker serves, not on costs or loads. Invariant: a worker has two turns at least.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.wire import WorkerInfo

TURNS_A_WORKER = 2
"""Turns that are always granted for each worker: one being scored and one on its way."""
TURNS_A_WRITING_WORKER = 12
"""Turns that are always granted for each worker whose model writes its scores: an answer takes
seconds, however many are written at once, and with a few of them a GPU has little to do."""


def turns_of(models: Sequence[WorkerInfo]) -> int:
    """The turns that are always granted for a worker with some models."""
    writes = any(model.max_completion_tokens for model in models)
    return TURNS_A_WRITING_WORKER if writes else TURNS_A_WORKER
