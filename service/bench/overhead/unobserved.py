"""The service with nobody looking: `gmr`, but nothing is counted, timed or logged, to measure what
looking costs.

Run by `gmr bench --observability` alone. The places that observe stay what they are; what they call
does nothing. Invariant: answers are those of the service, but for `Server-Timing`, which has no
stages; and a name that is not there any more is an error.
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
"""What stands in whose place. Each module is imported before those that take its names."""


def without_observability() -> None:
    """From now on have this process observe nothing. To be called before the rest of the service is
    imported."""
    for path, instead in _INSTEAD.items():
        module, _, place = path.partition(":")
        holder: object = import_module(module)
        *outer, name = place.split(".")
        for part in outer:
            holder = getattr(holder, part)
        getattr(holder, name)
        setattr(holder, name, instead)


if __name__ == "__main__":
    without_observability()
    from service.cli.main import app

    app()
