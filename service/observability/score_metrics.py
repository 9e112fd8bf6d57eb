"""Metrics of scores by model digest: the distribution of scores, and the results of pairs.

Does not depend on requests. The scores of a request are added in one step: adding them one by one
would cost as much as their cache lookups. Invariant: only the most recent digests have series,
whatever digests workers report; where several processes share their metrics, the first
`MOST_SHARED` digests have, because series in files cannot be dropped.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate
from typing import Any, Literal

from prometheus_client import values
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.errors import BadRequest, RerankError
from service.observability.shared_metrics import shared_metrics
from service.wire import Scored, Transform

MOST_DIGESTS = 8
"""Digests with series of their own. A further digest replaces the one without a pair for longest.
"""
MOST_SHARED = 64
"""Digests that have series where several processes share their metrics."""
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


_SCORES = ("rerank_relevance_score", "Relevance scores in answers, by model digest.")
_PAIRS = (
    "rerank_pairs",
    "Pairs by result: computed, cached, refused because of their content, or failed.",
)
_TRUNCATED = (
    "rerank_truncated_pairs",
    "Scored pairs whose text was truncated to the model's limit.",
)


class _ModelCounts:
    """The counts of one model, which other processes read where metrics are shared."""

    def __init__(self, digest: str) -> None:
        self.last_used = 0.0
        self.buckets = [_value("histogram", _SCORES, "_bucket", digest, le=le) for le in _BOUNDS]
        self.total = _value("histogram", _SCORES, "_sum", digest)
        self.truncated = _value("counter", _TRUNCATED, "_total", digest)
        self.pairs: dict[Result, Any] = {
            result: _value("counter", _PAIRS, "_total", digest, result=result) for result in RESULTS
        }


def _value(kind: str, metric: tuple[str, str], suffix: str, digest: str, **labels: str) -> Any:
    """A number of a series, as prometheus_client keeps those of its own metrics."""
    name, help_text = metric
    labels = {"digest": digest, **labels}
    return values.ValueClass(
        kind, name, name + suffix, tuple(labels), tuple(labels.values()), help_text
    )


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
        odds = [probability.log_odds(score.logit) for score in scores]
        edges = _LINEAR_EDGES if probability.curve == "linear" else _LOGIT_EDGES
        for bucket, count in Counter([bisect_left(edges, each) for each in odds]).items():
            model.buckets[bucket].inc(count)

        if probability.curve == "linear":
            model.total.inc(sum(odds))
        else:
            # tanh(x / 2) is 2 sigmoid(x) - 1, and does not overflow
            tanhs = sum([math.tanh(each / 2) for each in odds])
            model.total.inc((len(odds) + tanhs) / 2)
        model.truncated.inc(sum([score.truncated for score in scores]))

        model.pairs["cached"].inc(cached)
        model.pairs["computed"].inc(len(scores) - cached)
        if len(scores) < len(verdicts):
            refused = sum(isinstance(verdict, BadRequest) for verdict in verdicts)
            model.pairs["refused"].inc(refused)
            model.pairs["failed"].inc(len(verdicts) - len(scores) - refused)

    def collect(self) -> Iterator[Metric]:
        scores = HistogramMetricFamily(*_SCORES, labels=["digest"])
        pairs = CounterMetricFamily(*_PAIRS, labels=["digest", "result"])
        truncated = CounterMetricFamily(*_TRUNCATED, labels=["digest"])
        for digest, model in list(self._models.items()):
            cumulative = accumulate([bucket.get() for bucket in model.buckets])
            buckets = list(zip(_BOUNDS, cumulative, strict=True))
            scores.add_metric([digest], buckets, model.total.get())
            truncated.add_metric([digest], model.truncated.get())
            for result, count in model.pairs.items():
                pairs.add_metric([digest, result], count.get())

        yield from (scores, pairs, truncated)

    def _model(self, digest: str) -> _ModelCounts:
        """The counts of a digest, or of `other` if no further digest is kept."""
        now = self._clock()
        if digest not in self._models and not self._make_room(now):
            digest = OTHER
        if digest not in self._models:
            self._models[digest] = _ModelCounts(digest)

        model = self._models[digest]
        self._models.move_to_end(digest)
        model.last_used = now
        return model

    def _make_room(self, now: float) -> bool:
        """Make room for one more digest; returns whether there is some."""
        if shared_metrics() is not None:
            return len(self._models) < MOST_SHARED
        if len(self._models) < MOST_DIGESTS:
            return True

        oldest = next(iter(self._models))
        if now - self._models[oldest].last_used < KEPT_SECONDS:
            return False
        del self._models[oldest]
        return True
