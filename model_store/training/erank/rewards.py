"""Rewards of the second stage: the ranks of all answers to one query, as numbers.

Depends on texts and numbers, not on a network or a trainer. Invariant: rewards of a query depend on
its own answers alone, and not on their order.

The paper describes the cases and prints neither the constants nor the scale of the error; these are
the settings of `RewardConfig`, and choices of ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import pstdev

from pydantic import BaseModel, ConfigDict, Field

from model_store.families.generated_answer import number_in
from model_store.families.readout import GeneratedScore

_FORM = re.compile(r"\s*<think>.*?</think>\s*<answer>[^<]*</answer>", re.DOTALL)
_CONSTANT = 1e-6
"""The largest deviation that counts as none: rewards are sums of fp32's size."""


class RewardConfig(BaseModel):
    """The constants of the reward."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_penalty: float = Field(
        2.0, ge=0, le=1000, description="Of an answer that is not in the required form."
    )
    above_positive_penalty: float = Field(
        1.0, ge=0, le=1000, description="Of a negative that ranks above some positive."
    )
    error_unit: float = Field(
        10.0, gt=0, le=1000, description="Points of score that make a squared error of 1."
    )


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer to a pair of the query.

    `score` is the number that it has, None for an answer that is not in the required form. `before`
    is the score that the model of the first stage gave the pair; None where that wrote none.
    """

    positive: bool
    score: int | None
    before: float | None


def score_of(text: str, readout: GeneratedScore) -> int | None:
    """The number of an answer in the required form; None for any other text.

    The form is `<think>...</think><answer>7</answer>`, with nothing but white space before and
    within it; the service reads nothing that follows.
    """
    if not _FORM.match(text):
        return None
    number = number_in(text)
    if number is None or not readout.lowest <= number.value <= readout.highest:
        return None
    return number.value


def ranks(scores: Sequence[int | None]) -> list[int | None]:
    """The rank of each score from 1, ties at the least rank of their own; None for no score."""
    counts = Counter(score for score in scores if score is not None)
    rank_of: dict[int, int] = {}
    above = 0
    for score in sorted(counts, reverse=True):
        rank_of[score] = above + 1
        above += counts[score]
    return [None if score is None else rank_of[score] for score in scores]


def rewards(rollouts: Sequence[Rollout], config: RewardConfig) -> list[float]:
    """The reward of each answer; `rollouts` are all answers to all documents of one query.

    A negative whose pair has no earlier score, and that ranks above no positive, has an error of 0.
    Where no positive has a score, no negative is above one.
    """
    places = ranks([rollout.score for rollout in rollouts])
    lowest = 0
    for rollout, place in zip(rollouts, places, strict=True):
        if rollout.positive and place is not None:
            lowest = max(lowest, place)

    found: list[float] = []
    for rollout, place in zip(rollouts, places, strict=True):
        found.append(_reward(rollout, place, lowest, config))
    return found


def _reward(rollout: Rollout, place: int | None, lowest: int, config: RewardConfig) -> float:
    """`lowest` is the largest rank of a positive, 0 without one."""
    if place is None or rollout.score is None:
        return -config.format_penalty
    if rollout.positive:
        return 1 / place
    if place < lowest:
        return -config.above_positive_penalty
    if rollout.before is None:
        return 0.0
    error = (rollout.score - rollout.before) / config.error_unit
    return -error * error


def without_variance(values: Sequence[float], group: int) -> int:
    """Groups of `group` values in a row that are all equal: none of them has an advantage."""
    count = 0
    for start in range(0, len(values), group):
        count += pstdev(values[start : start + group]) <= _CONSTANT
    return count
