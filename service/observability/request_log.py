"""What a finished request leaves behind: its place in the metrics, and its line in the log.

Knows routes and statuses, nothing of what was asked. Invariant: a route names itself only where it
is one of ours, and a line says nothing but what the request's record holds: counts, names of ours,
digests.
"""

from __future__ import annotations

import logging
import random
from http import HTTPStatus
from typing import Any

from starlette.types import Scope

from service.observability.logs import log, logger
from service.observability.metrics import REQUEST_SECONDS
from service.observability.request_context import (
    RequestContext,
    exemplar,
    observe_stages,
    request_id,
    trace_id,
)

_QUIET = ("/health", "/metrics", "/info", "/score")
"""Routes logged at debug level only: machines ask them often, and a worker's `/score` is part of a
request that is logged."""
NO_DIALECT = "none"


def route_of(scope: Scope) -> str:
    """The path of the route that was found, as we wrote it; `unknown` where there was none."""
    return getattr(scope.get("route"), "path", "unknown")


def finish_request(record: RequestContext, route: str, status: int, share: float) -> None:
    """Count a finished request, and log it: a `share` of requests is logged, and all that the
    service failed."""
    seconds = record.seconds()
    REQUEST_SECONDS.labels(route, record.facts.get("dialect", NO_DIALECT), status).observe(
        seconds, exemplar()
    )
    observe_stages(record)
    quiet = record.facts.get("dialect", NO_DIALECT) in (NO_DIALECT, "worker") and route.startswith(
        _QUIET
    )
    level = logging.DEBUG if quiet else logging.INFO
    logged = quiet or status >= HTTPStatus.INTERNAL_SERVER_ERROR or random.random() < share
    if logged and logger.isEnabledFor(level):
        stages = {f"{name}_ms": _milliseconds(spent) for name, spent in record.timings().items()}
        fields: dict[str, Any] = (
            {"route": route, "status": status, "ms": _milliseconds(seconds)} | record.facts | stages
        )
        fields |= {"request_id": request_id.get(), "trace_id": trace_id()}
        log(
            "request", level, **{name: value for name, value in fields.items() if value is not None}
        )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
