"""The self-test of a worker: its engine must reproduce the published logits of a checkpoint's
golden pairs.

Depends on golden pairs and the engine protocol, not on how scores are computed. Invariant: a pair
without a score counts as infinitely far off.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from model_store.golden import UNREADABLE, GoldenPair, Side, read_golden, unreadable
from service.wire import Pixels, ScoreCall, Scored, WireItem, WorkerInfo
from service.worker.engines.base import CannotLoad, Engine

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""Largest difference of a logit by the engine's dtype: bf16 rounds a logit of 16 by up to 0.06, and
the errors of the layers add up."""


def golden_pairs(folder: Path) -> list[GoldenPair]:
    """A checkpoint's pairs, none where it has none; raises `CannotLoad` where they are
    unreadable."""
    try:
        return read_golden(folder)
    except UNREADABLE:
        raise CannotLoad(unreadable(folder)) from None


def allowed_drift(info: WorkerInfo, tolerance: float | None) -> float:
    """The largest accepted difference of a logit: `tolerance` if set, else that of the dtype."""
    return TOLERANCE.get(info.dtype, 0.5) if tolerance is None else tolerance


async def check_golden(
    engine: Engine, info: WorkerInfo, pairs: Sequence[GoldenPair], tolerance: float | None
) -> float:
    """Score every pair; returns the largest difference in logits, or raises `CannotLoad` with the
    first pair that is too far off."""
    allowed = allowed_drift(info, tolerance)
    largest = 0.0
    for index, pair in enumerate(pairs):
        logit = await _logit(engine, info, pair)
        difference = abs(logit - pair.logit)
        if not difference <= allowed:
            raise CannotLoad(
                f"{info.model}: golden pair {index} ({pair.cell}) has logit {logit:.4f}, published"
                f" {pair.logit:.4f}."
            )
        largest = max(largest, difference)
    return largest


async def golden_drift(engine: Engine, info: WorkerInfo, pairs: Sequence[GoldenPair]) -> float:
    """The largest difference in logits over all pairs; infinite where one has no score, 0 where
    there are no pairs."""
    largest = 0.0
    for pair in pairs:
        difference = abs(await _logit(engine, info, pair) - pair.logit)
        largest = max(largest, math.inf if math.isnan(difference) else difference)
    return largest


async def _logit(engine: Engine, info: WorkerInfo, pair: GoldenPair) -> float:
    """The engine's logit of a pair; NaN where it has none."""
    images: list[Pixels] = []
    query, document = _wire_item(pair.query, images), _wire_item(pair.document, images)
    call = ScoreCall(info.model, pair.instruction, query, [document], images, truncate=False)

    logit = math.nan
    async for _, verdict in engine.score(call):
        if isinstance(verdict, Scored):
            logit = verdict.logit
    return logit


def _wire_item(side: Side, images: list[Pixels]) -> WireItem:
    """A side of a pair in the form of a call; its images are appended to `images`."""
    parts: WireItem = []
    for part in side:
        if isinstance(part, str):
            parts.append(part)
            continue

        rgb = part.tobytes()
        height, width = part.shape[:2]
        parts.append(len(images))
        images.append(Pixels(hashlib.sha256(rgb).digest(), width, height, rgb))
    return parts
