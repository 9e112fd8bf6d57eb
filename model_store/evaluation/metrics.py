"""Ranking metrics, as the benchmarks of the field define them. Pure functions over relevances in
ranked order."""

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
    """1.0 if anything relevant is among the first `k`, else 0.0: what M-BEIR calls Recall@k."""
    return float(any(relevance > 0 for relevance in relevances[:k]))


def expected_ndcg_of_chance(candidates: int, k: int) -> float:
    """nDCG at `k` that a random order of `candidates` with one relevant among them has on
    average."""
    return sum(1 / math.log2(rank + 1) for rank in range(1, min(candidates, k) + 1)) / candidates


def ranked(scores: Sequence[float], relevances: Sequence[float]) -> list[float]:
    """Relevances in the order of falling scores; equal scores keep the candidates' order."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    return [relevances[place] for place in order]


def _dcg(relevances: Sequence[float], k: int) -> float:
    return sum(
        relevance / math.log2(rank + 1) for rank, relevance in enumerate(relevances[:k], start=1)
    )
