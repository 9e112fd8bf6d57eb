"""The kinds of metric that the service has, each registered with its labels in `LABELS`.

Knows prometheus_client, no metric in particular. Invariant: a counter whose labels' values are a
closed set has all its series from the start.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# A second series beside each of a counter and a histogram, which nobody reads.
disable_created_metrics()

LABELS: dict[str, dict[str, Sequence[str]]] = {}
"""By metric, its labels, and the values of those whose values are a closed set; of others none."""


OPEN: Sequence[str] = ()
"""The values of a label that are no closed set."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class CallbackGauge(Collector):
    """A gauge whose series are counted when they are asked for: those of things that come and
    go."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        LABELS[name] = dict.fromkeys(labels, OPEN)
        self._name, self._meaning, self._labels = name, meaning, labels
        self._count: Callable[[], Mapping[tuple[str, ...], int]] = dict
        REGISTRY.register(self)

    def set_function(self, count: Callable[[], Mapping[tuple[str, ...], int]]) -> None:
        """From now on have the series counted by `count`, by their labels' values."""
        self._count = count

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, number in self._count().items():
            family.add_metric(values, number)
        yield family


def counter(name: str, meaning: str, **labels: Sequence[str]) -> Counter:
    """A counter whose series are there from the start where its labels' values are known."""
    LABELS[name] = labels
    counter = Counter(name, meaning, list(labels))
    for values in itertools.product(*labels.values()) if labels else ():
        counter.labels(*values)
    return counter


def gauge(name: str, meaning: str, **labels: Sequence[str]) -> Gauge:
    """A gauge; a series appears when it is first set."""
    LABELS[name] = labels
    return Gauge(name, meaning, list(labels))


def histogram(
    name: str, meaning: str, buckets: Sequence[float], **labels: Sequence[str]
) -> Histogram:
    """A histogram over `buckets`, upper bounds in the metric's unit."""
    LABELS[name] = labels
    return Histogram(name, meaning, list(labels), buckets=buckets)
