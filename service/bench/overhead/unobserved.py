"""`gmr` without metrics, timings and log lines, as the baseline of `gmr bench --observability`.

The call sites stay in place; the functions that they call do nothing. Invariant: answers are those
of the service, but for `Server-Timing`, which has no stages; a replaced name that does not exist
any more is an error.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module


def _nothing(*_: object, **__: object) -> None:
    pass


def _itself(metric: object, *_: object) -> object:
    return metric


_INSTEAD = {
    "prometheus_client.metrics:MetricWrapperBase.labels": _itself,
    "prometheus_client:Counter.inc": _nothing,
    "prometheus_client:Gauge.inc": _nothing,
    "prometheus_client:Gauge.dec": _nothing,
    "prometheus_client:Gauge.set": _nothing,
    "prometheus_client:Gauge.set_function": _nothing,
    "prometheus_client:Histogram.observe": _nothing,
    "service.observability.score_metrics:ScoreMetrics.count": _nothing,
    "service.observability.request_context:stage": nullcontext,
    "service.observability.request_context:add_stage_seconds": _nothing,
    "service.observability.request_context:add_worker_seconds": _nothing,
    "service.observability.request_context:add_log_fields": _nothing,
    "service.observability.request_log:finish_request": _nothing,
    "service.gateway.request_metrics:count_query": _nothing,
    "service.gateway.request_metrics:count_result": _nothing,
}
"""Replacements by `MODULE:NAME`. Each module is imported before those that import names from it."""


def without_observability() -> None:
    """Replace all of them in this process; to be called before the rest of the service is
    imported."""
    for path, instead in _INSTEAD.items():
        module, _, dotted = path.partition(":")
        owner: object = import_module(module)
        *outer, name = dotted.split(".")
        for part in outer:
            owner = getattr(owner, part)

        getattr(owner, name)
        setattr(owner, name, instead)


if __name__ == "__main__":
    without_observability()
    from service.cli.main import app

    app()
