"""Health routes under other vendors' paths, for clients that ask before they rerank.

They answer as `/health/live` and `/health/ready` do. The module depends on the app's own readiness.
Invariant: no key is needed, and nothing is told but the state.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from service.web.asgi import ready_response

READY_PATHS = (
    "/.well-known/ready",  # Weaviate
    "/health",  # TEI, vLLM, Infinity, SGLang
    "/ping",  # SageMaker, TEI, vLLM
    "/v1/health/ready",  # NIM
)
LIVE_PATHS = ("/.well-known/live", "/v1/health/live")


def add_probes(router: APIRouter) -> None:
    """Add the health routes: 200, or 503 `no_worker` while requests cannot be answered."""

    async def ready(request: Request) -> Response:
        return ready_response(request.app)

    async def live() -> Response:
        return JSONResponse({"status": "live"})

    for path in READY_PATHS:
        router.add_api_route(path, ready, methods=["GET"], include_in_schema=False)
    for path in LIVE_PATHS:
        router.add_api_route(path, live, methods=["GET"], include_in_schema=False)
