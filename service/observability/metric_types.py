"""Constructors for the service's metrics, each of which registers its labels in `LABELS`.

Depends on prometheus_client, not on any metric in particular. Where several processes share their
metrics, counters and histograms are added up, and each gauge says how its values are combined.
Invariant: a counter whose labels have closed sets of values exports all its series from the start.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.observability.shared_metrics import shared_metrics

# `_created` is a second series for each counter and histogram, and no rule or dashboard reads it
disable_created_metrics()

LABELS: dict[str, dict[str, Sequence[str]]] = {}
"""The labels of each metric, and their possible values."""

OPEN: Sequence[str] = ()
"""The values of a label whose values are not a closed set."""

SECONDS = (
    *(0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75),
    *(1, 1.5, 2, 2.5, 3.5, 5, 7.5, 10, 15, 30, 60),
)
SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_MODES: dict[str, Literal["livesum", "livemax", "livemin"]] = {
    "sum": "livesum",
    "max": "livemax",
    "min": "livemin",
}
"""prometheus_client's names for them; those of processes that have ended do not count."""
_SAMPLED: list[tuple[Gauge, Callable[[], float]]] = []
"""Gauges that show what a function returns, where several processes share their metrics."""


class CallbackGauge(Collector):
    """A gauge whose series are computed by a callback at each scrape, so that series disappear
    together with what they describe.

    Of several processes, the one that answers the scrape shows its own.
    """

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        LABELS[name] = dict.fromkeys(labels, OPEN)
        self._name, self._help_text, self._labels = name, help_text, labels
        self._count: Callable[[], Mapping[tuple[str, ...], int]] = dict
        REGISTRY.register(self)

    def set_function(self, count: Callable[[], Mapping[tuple[str, ...], int]]) -> None:
        """Set the callback; it returns a value for each combination of label values."""
        self._count = count

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._help_text, labels=self._labels)
        for label_values, value in self._count().items():
            family.add_metric(label_values, value)
        yield family


def counter(name: str, help_text: str, **labels: Sequence[str]) -> Counter:
    """A counter; if all label values are closed sets, each series starts at 0."""
    LABELS[name] = labels
    counter = Counter(name, help_text, list(labels))
    for values in itertools.product(*labels.values()) if labels else ():
        counter.labels(*values)
    return counter


def gauge(
    name: str,
    help_text: str,
    combined: Literal["sum", "max", "min"] = "sum",
    **labels: Sequence[str],
) -> Gauge:
    """A gauge; a series with labels appears when it is first set.

    `combined` is how the values of several processes become one.
    """
    LABELS[name] = labels
    return Gauge(name, help_text, list(labels), multiprocess_mode=_MODES[combined])


def follow(gauge: Gauge, value: Callable[[], float]) -> None:
    """Have a gauge show what `value` returns: at each scrape or, where several processes share
    their metrics, at each `sample_gauges`."""
    if shared_metrics() is None:
        gauge.set_function(value)
    else:
        _SAMPLED.append((gauge, value))
        gauge.set(value())


def sample_gauges() -> None:
    """Set the gauges that follow a function, for scrapes that another process answers."""
    for gauge, value in _SAMPLED:
        gauge.set(value())


def histogram(
    name: str, help_text: str, buckets: Sequence[float], **labels: Sequence[str]
) -> Histogram:
    """A histogram with `buckets`, which are upper bounds in the metric's unit."""
    LABELS[name] = labels
    return Histogram(name, help_text, list(labels), buckets=buckets)
