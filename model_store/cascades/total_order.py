"""One order of the documents of a cascade, whichever stage scored each of them last.

Depends on scores alone: publishing and serving call the same function. A document that a later
stage scored is above all that it did not score. The scores of an earlier stage are lowered by one
amount, the least that puts the highest of them just below the lowest of the later stages; none
where they are below already. Invariant: the order is total; within a stage it is that of its
scores; and the scores of the last stage stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placed:
    """A document in the order of a cascade: the stage, from 0, that scored it last, and its score
    on the scale of the last stage."""

    index: int
    stage: int
    score: float


def total_order(stages: Sequence[Mapping[int, float]]) -> list[Placed]:
    """The documents of a cascade, the best first.

    `stages` are the scores of each stage by index, all on the scale of the last stage. Equal scores
    of a stage are ordered by index.
    """
    placed: list[Placed] = []
    seen: set[int] = set()
    lowest = math.inf
    for stage in reversed(range(len(stages))):
        own = {index: score for index, score in stages[stage].items() if index not in seen}
        if not own:
            continue

        lowered = _below(own, lowest)
        placed += [Placed(index, stage, score) for index, score in lowered.items()]
        lowest = min(lowered.values())
        seen.update(own)
    return sorted(placed, key=lambda each: (-each.score, each.index))


def _below(scores: Mapping[int, float], lowest: float) -> dict[int, float]:
    """Scores lowered by one amount, so that all are below `lowest`."""
    excess = max(scores.values()) - lowest
    if excess < 0:
        return dict(scores)

    most = math.nextafter(lowest, -math.inf)
    return {index: min(score - excess, most) for index, score in scores.items()}
