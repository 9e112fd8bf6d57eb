"""The stages of a cascade that score a request, and the documents that each keeps for the next one.

Depends on scores alone: publishing and serving call the same functions. Invariant: the kept
documents are the best ones, where equal scores count by index, and at least `at_least` of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from model_store.cascades.description import KeepRule, Stage

_ROUNDING = 1e-9
"""Share times number may be above a whole number by its rounding."""


def kept(log_odds: Mapping[int, float], rule: KeepRule) -> list[int]:
    """The indices of the documents that a rule keeps, in rising order; `log_odds` are the stage's
    scores by index."""
    best = sorted(log_odds, key=lambda index: (-log_odds[index], index))
    if rule.margin is None:
        count = most_kept(rule, len(best))
    elif best:
        assert rule.rank is not None, "a margin is given with its rank"
        threshold = log_odds[best[min(rule.rank, len(best)) - 1]] - rule.margin
        within = sum(score >= threshold for score in log_odds.values())
        count = max(within, rule.at_least)
    else:
        count = 0
    return sorted(best[:count])


def most_kept(rule: KeepRule, documents: int) -> int:
    """The number of documents that a share keeps of so many, and that a margin may keep."""
    if rule.share is None:
        return documents
    wanted = math.ceil(rule.share * documents - _ROUNDING)
    return min(documents, max(wanted, rule.at_least))


def next_stage(stages: Sequence[Stage], first: int, documents: int, *, pictures: bool) -> int:
    """The first stage, from `first` on, that has an effect on so many documents.

    One has none where it keeps everything, and where it is the next one at another size of images
    and there is no picture.
    """
    for number in range(first, len(stages) - 1):
        stage, following = stages[number], stages[number + 1]
        assert stage.keep is not None, "every stage but the last has a keep rule"
        same = (stage.model, stage.version) == (following.model, following.version)
        if not _keeps_all(stage.keep, documents) and (pictures or not same):
            return number
    return len(stages) - 1


def _keeps_all(rule: KeepRule, documents: int) -> bool:
    """True if a rule keeps all of so many documents, whatever their scores."""
    floor = rule.at_least if rule.share is None else most_kept(rule, documents)
    return floor >= documents
