"""The gateway's HTTP: which path is answered by whom. Every route but health asks for a key, where
keys are asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import JSONResponse, PlainTextResponse

from service.api import ErrorBody, RerankAnswer
from service.errors import Forbidden, NoWorker
from service.gateway.admission.authentication import Authenticator, caller_of
from service.gateway.dialects import native
from service.gateway.dialects.field_names import READ
from service.gateway.fleet.pool import WorkerPool
from service.gateway.info import OPENAPI_PATH, RERANK_PATHS, TITLE, described, listed
from service.gateway.model_names import ModelNames
from service.gateway.rerank_endpoint import RerankEndpoint
from service.gateway.settings import GatewaySettings
from service.observability.exposition import metrics_page

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody},
    "5XX": {"model": ErrorBody},
}


def gateway_routes(
    settings: GatewaySettings, desk: RerankEndpoint, workers: WorkerPool, guard: Authenticator
) -> APIRouter:
    """Every route of the gateway but health."""
    guarded = APIRouter(dependencies=[Depends(guard.authenticate)])
    _add_reranking(guarded, settings, desk)
    _add_models(guarded, settings, workers)
    _add_pages(guarded)
    measured = (
        APIRouter()
        if settings.metrics_public
        else APIRouter(dependencies=[Depends(guard.authenticate)])
    )

    @measured.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Prometheus' text format, or OpenMetrics."""
        return metrics_page(request)

    router = APIRouter()
    router.include_router(guarded)
    router.include_router(measured)
    return router


def _add_reranking(router: APIRouter, settings: GatewaySettings, desk: RerankEndpoint) -> None:
    read = partial(native.read, on_error=settings.on_error)

    async def rerank(request: Request) -> Response:
        """Order documents by their relevance to a query; texts, images, or both on either side."""
        return await desk.serve(request, native.NAME, READ, read, native.write)

    for path in RERANK_PATHS:
        router.add_api_route(
            path,
            rerank,
            methods=["POST"],
            response_model=RerankAnswer,
            responses=_ERRORS,
            tags=["rerank"],
            name=f"rerank {path}",
        )


def _add_models(router: APIRouter, settings: GatewaySettings, workers: WorkerPool) -> None:
    names = ModelNames(workers, settings.model_aliases)

    @router.get("/v1/models", tags=["models"], responses=_ERRORS)
    async def models(request: Request) -> Response:
        """The served models that the caller may use, and aliases for them, in OpenAI's shape."""
        if not workers.ready():
            raise NoWorker
        usable = names.usable(caller_of(request))
        return JSONResponse({"object": "list", "data": [listed(*each) for each in usable.items()]})

    @router.get("/v1/models/{model:path}", tags=["models"], responses=_ERRORS)
    async def model(request: Request, model: str) -> Response:
        """One served model, or an alias for one, in OpenAI's shape."""
        found = names.find(caller_of(request), model)
        return JSONResponse(listed(model, found.model))

    @router.get("/info", tags=["models"], responses=_ERRORS)
    async def info(request: Request) -> Response:
        """What a client needs to size its calls, of the first model that the caller may use."""
        default = workers.model()
        usable = [
            name for name in (default.model, *workers.names()) if caller_of(request).may_use(name)
        ]
        if not usable:
            raise Forbidden
        return JSONResponse(described(settings.limits(), workers.model(usable[0])))


def _add_pages(router: APIRouter) -> None:
    @router.get(OPENAPI_PATH, include_in_schema=False)
    async def openapi(request: Request) -> Response:
        return JSONResponse(request.app.openapi())

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(openapi_url=OPENAPI_PATH, title=TITLE)
