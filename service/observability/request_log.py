"""The metrics and the log line of a finished request.

Depends on routes and statuses, not on the content of requests. Invariant: only a route of ours
becomes a label; a log line has only the fields of the request's context: counts, digests and names
of ours.
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

OPTIONS = "options"
"""The route, in metrics and logs, of requests that ask for a path's methods."""
_PROBES = ("/health", "/.well-known", "/ping", "/v1/health")
_QUIET = (*_PROBES, "/metrics", "/info", "/score", OPTIONS)
"""Routes logged at debug level: probes, scrapes and preflight requests are frequent, and a worker's
`/score` is part of a request that the gateway logs."""
NO_DIALECT = "none"


def route_of(scope: Scope) -> str:
    """The path of the route that matched, as it was declared; `unknown` if none did, and `options`
    where no route has to match."""
    if scope["method"] == "OPTIONS":
        return OPTIONS
    return getattr(scope.get("route"), "path", "unknown")


def finish_request(context: RequestContext, route: str, status: int, sample: float) -> None:
    """Observe a finished request in the metrics, and log it.

    The share `sample` of requests is logged, and every one that failed with a 5xx status.
    """
    seconds = context.seconds()
    dialect = context.log_fields.get("dialect", NO_DIALECT)
    REQUEST_SECONDS.labels(route, dialect, status).observe(seconds, exemplar())
    observe_stages(context)

    quiet = dialect in (NO_DIALECT, "worker") and route.startswith(_QUIET)
    level = logging.DEBUG if quiet else logging.INFO
    sampled = quiet or status >= HTTPStatus.INTERNAL_SERVER_ERROR or random.random() < sample
    if sampled and logger.isEnabledFor(level):
        fields = _fields(context, route, status, seconds)
        log("request", level, **fields)


def _fields(context: RequestContext, route: str, status: int, seconds: float) -> dict[str, Any]:
    """The fields of a request's log line, without those that have no value."""
    fields: dict[str, Any] = {"route": route, "status": status, "ms": _milliseconds(seconds)}
    fields |= context.log_fields
    for name, spent in context.timings().items():
        fields[f"{name}_ms"] = _milliseconds(spent)
    fields |= {"request_id": request_id.get(), "trace_id": trace_id()}
    return {name: value for name, value in fields.items() if value is not None}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
