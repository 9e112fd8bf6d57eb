"""Metrics of scores by model digest: the distribution of scores, and the results of pairs.

Does not depend on requests. The scores of a request are added in one step: adding them one by one
would cost as much as their cache lookups. Invariant: only the most recent digests have series,
whatever digests workers report.
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
from service.wire import Scored, Transform

MOST_DIGESTS = 8
"""Digests with series of their own. A further digest replaces the one without a pair for longest.
"""
KEPT_SECONDS = 600.0
"""Seconds after its last pair before a digest can be replaced. While none can be, further digests
count as `other`, so that many digests do not replace each other in turn."""
OTHER = "other"

_EDGES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
_LOGIT_EDGES = [math.log(edge / (1 - edge)) for edge in _EDGES]
_LINEAR_EDGES = [*_EDGES, 1.0]
_BOUNDS = [*map(str, _EDGES), "1.0", "+Inf"]
_SIGMOID = Transform()

Result = Literal["computed", "cached", "refused", "failed"]
RESULTS: tuple[Result, ...] = ("computed", "cached", "refused", "failed")


def short_digest(digest: str) -> str:
    """A digest as in metrics and log lines: its first 12 hexadecimal digits, or `other` if they are
    not hexadecimal."""
    digits = digest.removeprefix("sha256:")[:12]
    return digits if len(digits) == 12 and set(digits) <= set("0123456789abcdef") else OTHER


@dataclass(slots=True)
class _ModelCounts:
    """The counts of one model."""

    last_used: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    total: float = 0.0
    truncated: int = 0
    pairs: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))


class ScoreMetrics(Collector):
    """A Prometheus collector that counts the verdicts of pairs by digest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: OrderedDict[str, _ModelCounts] = OrderedDict()

    def count(
        self,
        digest: str,
        verdicts: Collection[Scored | RerankError],
        *,
        cached: int,
        probability: Transform = _SIGMOID,
    ) -> None:
        """Add the verdicts of a request; `cached` of the scores came from the cache.

        `probability` is the model's transform from raw scores to relevance scores.
        """
        model = self._model(short_digest(digest))
        scores = [verdict for verdict in verdicts if isinstance(verdict, Scored)]
        values = [probability.log_odds(score.logit) for score in scores]
        edges = _LINEAR_EDGES if probability.curve == "linear" else _LOGIT_EDGES
        for value in values:
            model.buckets[bisect_left(edges, value)] += 1

        if probability.curve == "linear":
            model.total += sum(values)
        else:
            # tanh(x / 2) is 2 sigmoid(x) - 1, and does not overflow
            tanhs = sum([math.tanh(value / 2) for value in values])
            model.total += (len(values) + tanhs) / 2
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
            cumulative = map(float, accumulate(model.buckets))
            buckets = list(zip(_BOUNDS, cumulative, strict=True))
            scores.add_metric([digest], buckets, model.total)
            truncated.add_metric([digest], model.truncated)
            for result, count in model.pairs.items():
                pairs.add_metric([digest, result], count)

        yield from (scores, pairs, truncated)

    def _model(self, digest: str) -> _ModelCounts:
        """The counts of a digest, or of `other` if no further digest is kept."""
        now = self._clock()
        if digest not in self._models and len(self._models) >= MOST_DIGESTS:
            oldest = next(iter(self._models))
            if now - self._models[oldest].last_used >= KEPT_SECONDS:
                del self._models[oldest]
            else:
                digest = OTHER

        model = self._models.setdefault(digest, _ModelCounts())
        self._models.move_to_end(digest)
        model.last_used = now
        return model
