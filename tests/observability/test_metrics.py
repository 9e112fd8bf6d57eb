"""Every metric has a name that passes Prometheus' linter, a bounded set of series, and an entry
in the page of metrics."""

from __future__ import annotations

import inspect
import subprocess

import pytest
from prometheus_client import REGISTRY, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from service.errors import BY_CODE
from service.observability.exposition import REGISTERED
from service.observability.metric_types import LABELS, CallbackGauge
from service.observability.metrics import REQUEST_SECONDS, SCORING_SECONDS
from service.observability.score_metrics import ScoreMetrics

OBJECTIVES = {0.25, 0.5, 1.0, 2.5}


def exported() -> dict[str, str]:
    """The types of the service's metrics by name."""
    families = {
        f"{each.name}_total" if each.type == "counter" else each.name: each.type
        for each in REGISTRY.collect()
    }
    return {name: kind for name, kind in families.items() if name.startswith("rerank_")}


def test_prometheus_linter_finds_nothing() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_client_makes_no_native_histograms_yet() -> None:
    """Once this fails, they can be an option; docs/observability.md says why there is none."""
    options = inspect.signature(Histogram).parameters
    assert not [name for name in options if "native" in name or "schema" in name]


def test_every_metric_states_its_labels() -> None:
    assert exported().keys() == LABELS.keys()


def test_the_first_increase_of_a_counter_is_seen() -> None:
    """All series of a counter start at 0: a series that appears with 1 has no increase."""
    there = {
        (each.name, *each.labels.values())
        for family in REGISTRY.collect()
        for each in family.samples
    }
    for code in BY_CODE:
        assert ("rerank_errors_total", code) in there
    closed = {
        name: labels
        for name, labels in LABELS.items()
        if name.endswith("_total") and all(labels.values())
    }
    assert len(closed) > 15
    for name, labels in closed.items():
        for values in labels.values():
            assert all(
                any(name == each[0] and value in each for each in there) for value in values
            ), name


@pytest.mark.parametrize(
    "name", ["rerank_request_duration_seconds", "rerank_scoring_duration_seconds"]
)
def test_latency_objectives_are_bucket_edges(name: str) -> None:
    REQUEST_SECONDS.labels("/rerank", "native", 200).observe(0.1)
    SCORING_SECONDS.labels("1", "text").observe(0.1)
    (histogram,) = [family for family in REGISTRY.collect() if family.name == name]
    bounds = {float(sample.labels["le"]) for sample in histogram.samples if "le" in sample.labels}
    assert bounds >= OBJECTIVES
    assert min(bounds) == 0.0025


def test_no_metric_is_made_elsewhere() -> None:
    made: set[str] = set()
    for module in REGISTERED:
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase | CallbackGauge | ScoreMetrics):
                made |= {family.name for family in metric.collect()}
    assert {name.removesuffix("_total") for name in exported()} == made
