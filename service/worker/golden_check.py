"""The self-test before a worker turns ready: a checkpoint's golden pairs must come out as
published.

Knows pairs and what an engine says of them, not how scores are computed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from model_store.golden import GOLDEN, GoldenPair, Side, read_golden
from service.wire import Pixels, ScoreCall, Scored, WireItem, WorkerInfo
from service.worker.engines.base import CannotLoad, Engine

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""How far a logit may be off, by the engine's dtype: bf16 rounds a logit of 16 by up to 0.06, and
adds up over layers."""


def golden_pairs(folder: Path) -> list[GoldenPair]:
    """A checkpoint's pairs, none where it has none; raises `CannotLoad` where they cannot be
    read."""
    try:
        return read_golden(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise CannotLoad(
            f"{folder.name}: {GOLDEN} or one of its pictures cannot be read."
        ) from None


def allowed_drift(info: WorkerInfo, tolerance: float | None) -> float:
    """How far one of a model's golden pairs may be off, in logits; `tolerance` stands above what
    follows from the dtype."""
    return TOLERANCE.get(info.dtype, 0.5) if tolerance is None else tolerance


async def check_golden(
    engine: Engine, info: WorkerInfo, pairs: Sequence[GoldenPair], tolerance: float | None
) -> float:
    """Score every pair; gives the largest deviation in logits, or raises `CannotLoad` that names
    the pair and the deviation."""
    allowed = allowed_drift(info, tolerance)
    worst = 0.0
    for place, pair in enumerate(pairs):
        found = await _logit(engine, info, pair)
        off = abs(found - pair.logit)
        if not off <= allowed:
            raise CannotLoad(
                f"{info.model}: golden pair {place} ({pair.cell}) has logit {found:.4f}, published"
                f" {pair.logit:.4f}."
            )
        worst = max(worst, off)
    return worst


async def golden_drift(engine: Engine, info: WorkerInfo, pairs: Sequence[GoldenPair]) -> float:
    """The largest deviation of all pairs in logits, infinite where one has no score."""
    found = [(await _logit(engine, info, pair), pair.logit) for pair in pairs]
    return max(
        (math.inf if math.isnan(logit) else abs(logit - published) for logit, published in found),
        default=0.0,
    )


async def _logit(engine: Engine, info: WorkerInfo, pair: GoldenPair) -> float:
    """What a pair's logit is here; NaN where it has none."""
    images: list[Pixels] = []
    query, document = _wire(pair.query, images), _wire(pair.document, images)
    call = ScoreCall(info.model, pair.instruction, query, [document], images, truncate=False)
    verdicts = [verdict async for _, verdict in engine.score(call)]
    return verdicts[0].logit if len(verdicts) == 1 and isinstance(verdicts[0], Scored) else math.nan


def _wire(side: Side, images: list[Pixels]) -> WireItem:
    parts: WireItem = []
    for part in side:
        if isinstance(part, str):
            parts.append(part)
        else:
            rgb = part.tobytes()
            parts.append(len(images))
            images.append(Pixels(hashlib.sha256(rgb).digest(), part.shape[1], part.shape[0], rgb))
    return parts
