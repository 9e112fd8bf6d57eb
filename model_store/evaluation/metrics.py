"""Ranking metrics, as the field's benchmarks define them: functions of relevances in ranked order.

Does not depend on models or data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def ndcg(relevances: Sequence[float], k: int) -> float:
    """Normalised discounted cumulative gain at `k`: linear gain, log2 discount, as trec_eval's
    `ndcg_cut`.

    `relevances` are those of a query's candidates, best ranked first; 0.0 where nothing is
    relevant.
    """
    ideal = _dcg(sorted(relevances, reverse=True), k)
    return _dcg(relevances, k) / ideal if ideal > 0 else 0.0


def hit_rate(relevances: Sequence[float], k: int) -> float:
    """1.0 if a relevant candidate is among the first `k`, else 0.0. M-BEIR calls it Recall@k."""
    return float(any(relevance > 0 for relevance in relevances[:k]))


def expected_ndcg_of_chance(candidates: int, k: int) -> float:
    """The mean nDCG at `k` of a random order of `candidates`, one of them relevant."""
    return sum(1 / math.log2(rank + 1) for rank in range(1, min(candidates, k) + 1)) / candidates


def ranked(scores: Sequence[float], relevances: Sequence[float]) -> list[float]:
    """Relevances by falling score; equal scores keep the candidates' order."""
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return [relevances[index] for index in order]


def _dcg(relevances: Sequence[float], k: int) -> float:
    return sum(
        relevance / math.log2(rank + 1) for rank, relevance in enumerate(relevances[:k], start=1)
    )
