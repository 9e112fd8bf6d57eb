"""The gateway's composition root: settings and worker clients in, an ASGI app out. Everything is built here, top to bottom."""

from __future__ import annotations

import gc
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio
import httpx
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.asgi import prepare
from service.contracts import RerankRequest
from service.gateway.admission import Admission
from service.gateway.cache import MemoryTier, ScoreCache
from service.gateway.media import Media
from service.gateway.rerank import Reranker
from service.gateway.routes import RERANK_PATHS, gateway_routes
from service.gateway.settings import GatewaySettings
from service.gateway.workers import Workers

TITLE = "gmr-rerank"
_CONNECT_SECONDS = 2.0
_KEEP_ALIVE_SECONDS = 2.0
"""Less than a worker keeps an idle connection (uvicorn: 5), so that no call is sent into one that is just being closed."""


def connect(url: str) -> httpx.AsyncClient:
    """A client for a worker at an address."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=_KEEP_ALIVE_SECONDS)
    return httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS), limits=limits, trust_env=False)


def create_gateway(
    settings: GatewaySettings, workers: Sequence[httpx.AsyncClient], *, beside: AbstractAsyncContextManager[Any] | None = None
) -> FastAPI:
    """The gateway over the given workers. `beside` is entered for as long as the gateway runs: an embedded worker's lifespan."""
    pool = Workers(workers, affinity=settings.routing == "affinity", split=settings.split)
    media = Media(settings.limits())
    cache = ScoreCache([MemoryTier(settings.cache_memory_bytes)])
    reranker = Reranker(media, cache, pool, secret=_secret(settings))
    admission = Admission(
        capacity=settings.capacity_tokens, max_waiting=settings.max_waiting, max_wait_seconds=settings.max_wait_ms / 1000
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with beside or nullcontext(), pool.watched(), anyio.create_task_group() as background:
            background.start_soon(media.warm_up)
            gc.collect()
            gc.freeze()  # what is there now stays: looking through it again would cost every request half a millisecond
            yield
            background.cancel_scope.cancel()

    app = FastAPI(title=TITLE, lifespan=lifespan, redoc_url=None, redirect_slashes=False)
    app.include_router(gateway_routes(settings, reranker, admission, pool))
    prepare(app, is_ready=pool.ready)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _secret(settings: GatewaySettings) -> bytes:
    given = settings.cache_key_secret
    return given.get_secret_value().encode() if given else secrets.token_bytes(32)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI page, with the request's schema, which the handler reads from bytes itself."""
    if not app.openapi_schema:
        page = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schema = RerankRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        page["components"]["schemas"] |= schema.pop("$defs") | {"RerankRequest": schema}
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/RerankRequest"}}}
        for path in RERANK_PATHS:
            page["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
        app.openapi_schema = page
    return app.openapi_schema
