"""Dashboards and rules name only metrics, labels and label values that the service has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from deploy.dashboards.build import DASHBOARDS
from service.observability import exposition  # noqa: F401 - its import registers each metric
from service.observability.metric_types import LABELS
from tests.observability.expressions import Selector, grouped_by, selectors
from tests.observability.rules import RECORDED, ROOT, rules

_TARGET = {"namespace", "job", "pod", "instance"}
_VLLM = {"model_name", "engine"}
_GPU = {"gpu"}
_PROCESS = ("process_cpu_seconds_total", "process_resident_memory_bytes")
_DCGM = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
)
"""Of DCGM's exporter, from its lists of default counters and of profiling ones."""


_KUBE = {
    "kube_deployment_spec_replicas": {"namespace", "deployment"},
    "kube_deployment_status_replicas_ready": {"namespace", "deployment"},
    "kube_deployment_status_replicas_updated": {"namespace", "deployment"},
    "kube_pod_container_status_waiting_reason": {"namespace", "pod", "container", "reason"},
    "kube_pod_init_container_status_waiting_reason": {"namespace", "pod", "container", "reason"},
    "kube_pod_status_scheduled": {"namespace", "pod", "condition", "reason"},
}
"""Labels of kube-state-metrics, from its documentation; an alert makes the last one's reason."""
_OF_KUBE = re.compile(r"\b(kube_\w+)\{([^{}]*)\}")


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of a dashboard or rule, with its location."""
    for dashboard in DASHBOARDS:
        for variable in dashboard.variables:
            yield f"{dashboard.name}: ${variable.name}", variable.query
        for panel in dashboard.panels():
            yield from ((f"{dashboard.name}: {panel.title}", query.expr) for query in panel.queries)
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]


EXPRESSIONS = list(expressions())


def labels_of(metric: str) -> dict[str, Sequence[str]]:
    """The labels of a metric and their possible values, empty if any value is; fails for an
    unknown metric."""
    base = re.sub(r"_(bucket|sum|count)$", "", metric)
    histogram = base != metric
    if base in LABELS or metric in LABELS:
        return dict(LABELS.get(metric) or LABELS[base]) | ({"le": ()} if histogram else {})
    if metric in RECORDED:
        return dict.fromkeys(grouped_by(RECORDED[metric]["expr"]), ())
    if metric.startswith("vllm:"):
        assert f'"{metric.removesuffix("_total")}"' in vllm_source(), f"vLLM has no {metric}"
        return dict.fromkeys(_VLLM, ())
    assert metric in (*_PROCESS, *_DCGM), f"nobody exports {metric}"
    return dict.fromkeys(_GPU, ()) if metric in _DCGM else {}


def vllm_source() -> str:
    """The source file in which the installed vLLM names its metrics."""
    (file,) = (ROOT / ".venv-vllm").glob("lib/python*/site-packages/vllm/v1/metrics/loggers.py")
    return file.read_text(encoding="utf-8")


def expect_exists(selector: Selector) -> None:
    known = labels_of(selector.metric)
    for label, values in selector.matchers.items():
        assert label in known or label in _TARGET, f"{selector.metric} has no label {label}"
        closed = known.get(label)
        missing = {
            value
            for value in values
            if closed and not value.startswith("$") and value not in closed
        }
        assert not missing, f"{selector.metric}: {label} is never {missing}"


@pytest.mark.parametrize(("place", "expr"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_an_expression_names_what_exists(place: str, expr: str) -> None:
    named = [selector for selector in selectors(expr) if selector.metric != "ALERTS"]
    for selector in named:
        expect_exists(selector)
    known = {label for selector in named for label in labels_of(selector.metric)} | _TARGET
    for metric, matchers in _OF_KUBE.findall(expr):
        assert set(re.findall(r"(\w+)=", matchers)) <= _KUBE[metric]
        known |= _KUBE[metric]
    assert grouped_by(expr) <= known
