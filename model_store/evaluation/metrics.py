"""Ranking metrics, as the field's benchmarks define them: functions of relevances in ranked order.

Does not depend on models or data. Invariant: a metric is the same however many irrelevant
candidates follow the last relevant one, so that lists of unequal length may be padded with zeros.

A list of one query is measured by `ndcg` and `hit_rate`, and the queries of a benchmark by a
`Metric`, many at a time. Definitions and values are those of trec_eval, but for ties: trec_eval
breaks them by the documents' ids, and this module by the first stage's order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
MetricKind = Literal["ndcg", "mrr", "recall", "hit", "map"]
_KINDS: dict[str, MetricKind] = {kind: kind for kind in get_args(MetricKind)}
MAX_CUT = 10_000
_NAME = re.compile(r"([a-z]+)(?:@([1-9][0-9]{0,5}))?")


class MetricUnknown(ValueError):
    """A name that is no metric; its text is one sentence."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the first `cut` candidates, or of all where `cut` is None.

    - `ndcg`: normalised discounted cumulative gain with linear gain and log2 discount; trec_eval's
      `ndcg_cut`.
    - `mrr`: the reciprocal rank of the first relevant candidate; `recip_rank`.
    - `recall`: the share of all relevant documents; `recall`.
    - `hit`: 1 if one of them is relevant, else 0; `success`. M-BEIR calls it Recall@k.
    - `map`: average precision, whose divisor is the number of all relevant documents; `map_cut`.
    """

    kind: MetricKind
    cut: int | None = None

    @property
    def name(self) -> str:
        """The name that `parse_metric` reads, such as "ndcg@10"."""
        return self.kind if self.cut is None else f"{self.kind}@{self.cut}"

    def values(self, relevances: npt.ArrayLike, ideal: npt.ArrayLike) -> FloatArray:
        """Values of queries, `[...]`; 0 where no document is relevant.

        `relevances`, `[..., candidates]`, are the grades of the candidates in ranked order.
        `ideal`, `[..., judged]`, has the grades of all judged documents, the largest first: what a
        first stage missed counts. Grades below 0 count as 0.
        """
        gains, best = (np.maximum(np.asarray(each, float), 0.0) for each in (relevances, ideal))
        first = gains[..., : self.cut]
        if self.kind == "ndcg":
            return _ratio(_discounted(first), _discounted(best[..., : self.cut]))

        hits, relevant = first > 0, np.count_nonzero(best, axis=-1)
        ranks = np.arange(1, hits.shape[-1] + 1)
        if self.kind == "recall":
            return _ratio(np.count_nonzero(hits, axis=-1), relevant)
        if self.kind == "map":
            precisions = np.cumsum(hits, axis=-1) / ranks
            return _ratio(_summed(precisions * hits), relevant)

        reciprocals = (hits / ranks).max(axis=-1, initial=0.0)
        return np.asarray(reciprocals if self.kind == "mrr" else reciprocals > 0, float)


def parse_metric(name: str) -> Metric:
    """The metric of a name, such as "ndcg@10", "hit@5" or "mrr"; raises `MetricUnknown`."""
    match = _NAME.fullmatch(name)
    if not match or match[1] not in _KINDS:
        raise MetricUnknown(
            f"{name[:80]!r} is no metric: one of {', '.join(_KINDS)} is, alone or with the number"
            " of candidates that count, as in ndcg@10."
        )
    if match[2] and int(match[2]) > MAX_CUT:
        raise MetricUnknown(f"{name} is beyond the first {MAX_CUT} candidates.")
    return Metric(_KINDS[match[1]], int(match[2]) if match[2] else None)


def ranking(scores: Sequence[float | None]) -> npt.NDArray[np.intp]:
    """Places of candidates in ranked order, `[candidates]`: by falling score, and equal scores in
    the order that they are given in. Candidates without a score are the last, in that order.
    """
    keys = np.array([math.inf if score is None else -score for score in scores], float)
    return np.argsort(keys, kind="stable")


def _discounted(gains: FloatArray) -> FloatArray:
    """Discounted cumulative gains, `[...]`, of `[..., candidates]`."""
    return _summed(gains / np.log2(np.arange(2, gains.shape[-1] + 2)))


def _summed(terms: FloatArray) -> FloatArray:
    """Sums over the last axis from its start, so that zeros at the end change no bit."""
    if not terms.shape[-1]:
        return np.zeros(terms.shape[:-1])
    return np.asarray(np.cumsum(terms, axis=-1)[..., -1])


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> FloatArray:
    """part / whole, and 0 where the whole is 0."""
    numerator, divisor = np.asarray(part, float), np.asarray(whole, float)
    ratios = np.divide(numerator, divisor, out=np.zeros_like(numerator), where=divisor > 0)
    return np.asarray(ratios)


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
