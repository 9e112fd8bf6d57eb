"""`/metrics`: what this process has measured, in Prometheus' text format, or in OpenMetrics where
that is asked for.

Knows formats, no metric. Invariant: what was asked for is never repeated in the answer.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.requests import Request
from starlette.responses import Response

_OPENMETRICS = "application/openmetrics-text"


def metrics_page(request: Request) -> Response:
    """All metrics. Exemplars, which lead to traces, exist in OpenMetrics alone."""
    if _OPENMETRICS in request.headers.get("accept", ""):
        return Response(
            openmetrics.generate_latest(REGISTRY), media_type=openmetrics.CONTENT_TYPE_LATEST
        )
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
