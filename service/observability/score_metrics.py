"""What scores look like, by the digest of the model that they are of: how they are distributed, and
what became of pairs.

Knows verdicts, nothing of requests. A request's scores are added at once: one by one they would
cost as much as looking them up. Invariant: the last few digests alone have series, whatever digests
workers make up.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.errors import BadRequest, RerankError
from service.wire import Scored

MOST_DIGESTS = 8
"""Models that are told apart. One more takes the place of the one that was longest without a pair.
"""
KEPT_SECONDS = 600.0
"""A model that had a pair so lately keeps its place. Where all did, one more is `other`: many do
not push each other out."""
OTHER = "other"

_EDGES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
_LOGIT_EDGES = [math.log(edge / (1 - edge)) for edge in _EDGES]
_BOUNDS = [*map(str, _EDGES), "1.0", "+Inf"]

Result = Literal["computed", "cached", "refused", "failed"]
RESULTS: tuple[Result, ...] = ("computed", "cached", "refused", "failed")


def short(digest: str) -> str:
    """A digest as metrics and log lines have it: its first hexadecimal digits, `other` for what is
    none."""
    digits = digest.removeprefix("sha256:")[:12]
    return digits if len(digits) == 12 and set(digits) <= set("0123456789abcdef") else OTHER


@dataclass(slots=True)
class _Model:
    """What has been counted of one model."""

    last: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(_EDGES) + 1))
    total: float = 0.0
    truncated: int = 0
    pairs: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))


class ScoreMetrics(Collector):
    """Counts verdicts by digest, and exports the counts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: OrderedDict[str, _Model] = OrderedDict()

    def count(
        self, digest: str, verdicts: Collection[Scored | RerankError], *, cached: int
    ) -> None:
        """Add a request's verdicts, of which the scores of `cached` were known."""
        model = self._model(short(digest))
        scores = [verdict for verdict in verdicts if isinstance(verdict, Scored)]
        logits = [score.logit for score in scores]
        for logit in logits:
            model.buckets[bisect_left(_LOGIT_EDGES, logit)] += 1
        # twice the sigmoid less one, and it never overflows
        tanhs = sum([math.tanh(logit / 2) for logit in logits])
        model.total += (len(logits) + tanhs) / 2
        model.truncated += sum([score.truncated for score in scores])
        model.pairs["cached"] += cached
        model.pairs["computed"] += len(scores) - cached
        if len(scores) < len(verdicts):
            refused = sum(isinstance(verdict, BadRequest) for verdict in verdicts)
            model.pairs["refused"] += refused
            model.pairs["failed"] += len(verdicts) - len(scores) - refused

    def collect(self) -> Iterator[Metric]:
        scores = HistogramMetricFamily(
            "rerank_relevance_score",
            "Relevance scores in answers, by model digest.",
            labels=["digest"],
        )
        pairs = CounterMetricFamily(
            "rerank_pairs",
            "Pairs by result: computed, cached, refused because of their content, or failed.",
            labels=["digest", "result"],
        )
        truncated = CounterMetricFamily(
            "rerank_truncated_pairs",
            "Scored pairs whose text was truncated to the model's limit.",
            labels=["digest"],
        )
        for digest, model in list(self._models.items()):
            counts = accumulate([*model.buckets, 0])
            scores.add_metric(
                [digest], list(zip(_BOUNDS, map(float, counts), strict=True)), model.total
            )
            truncated.add_metric([digest], model.truncated)
            for result, count in model.pairs.items():
                pairs.add_metric([digest, result], count)
        yield from (scores, pairs, truncated)

    def _model(self, digest: str) -> _Model:
        """The model's counts, begun where there is room for one more."""
        now = self._clock()
        if digest not in self._models and len(self._models) >= MOST_DIGESTS:
            oldest = next(iter(self._models))
            if now - self._models[oldest].last < KEPT_SECONDS:
                digest = OTHER
            else:
                del self._models[oldest]
        model = self._models.setdefault(digest, _Model())
        self._models.move_to_end(digest)
        model.last = now
        return model
