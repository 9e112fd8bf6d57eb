"""`/metrics`: the metrics of this process, or of all processes that share theirs, in Prometheus'
text format or in OpenMetrics.

Does not depend on any metric in particular; it imports the modules that register them, so that
every process has the same series. Invariant: the content type holds only values of ours, whatever
the `Accept` header says.
"""

from __future__ import annotations

import anyio.to_thread
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from service.observability import (
    cascade_metrics,
    engine_metrics,
    feedback_metrics,
    image_metrics,
    metrics,
)
from service.observability.metric_types import sample_gauges
from service.observability.shared_metrics import shared_metrics

REGISTERED = (metrics, engine_metrics, image_metrics, cascade_metrics, feedback_metrics)
"""The modules whose metrics a page shows."""

_UNDERSTOOD = frozenset(
    {
        "application/openmetrics-text",
        "text/plain",
        "version=0.0.4",
        "version=1.0.0",
        "escaping=allow-utf-8",
        "escaping=dots",
        "escaping=underscores",
        "escaping=values",
    }
)


async def metrics_page(request: Request) -> Response:
    """All metrics, in the format that the request accepts. Exemplars, which refer to traces, exist
    in OpenMetrics only, and not where processes share their metrics."""
    encode, content_type = choose_encoder(_understood(request.headers.get("accept", "")))
    shared = shared_metrics()
    if shared is None:
        return Response(encode(REGISTRY), media_type=content_type)

    sample_gauges()
    registry: CollectorRegistry = shared.registry([metrics.MODEL_WORKERS])
    # the files of all processes are read and added up: other requests go on meanwhile
    page = await anyio.to_thread.run_sync(encode, registry)
    return Response(page, media_type=content_type)


def _understood(accept: str) -> str:
    """An `Accept` header without the media types and parameters that are not understood here.

    `choose_encoder` repeats any version in the content type, and raises on one that is no number.
    """
    accepted = []
    for media_range in accept.split(","):
        parts = [part.strip() for part in media_range.split(";")]
        accepted.append(";".join(part for part in parts if part in _UNDERSTOOD))
    return ",".join(accepted)
