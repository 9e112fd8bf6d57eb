"""The gateway's routes. Where the gateway has keys, every route requires one, except those of
health, of pages, and of the OpenAPI document that a page reads: they hold nothing of a caller."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from service.error_body import ErrorBody
from service.errors import Forbidden
from service.gateway.admission.authentication import Authenticator, caller_of
from service.gateway.cascades.catalogue import LastServed, ServedModels
from service.gateway.dialects.catalogue import DIALECTS
from service.gateway.dialects.dialect import Dialect
from service.gateway.feedback.endpoint import FeedbackEndpoint
from service.gateway.feedback_routes import add_feedback
from service.gateway.images.endpoint import IMAGES_PATH, MISSING_PATH, ImagesEndpoint
from service.gateway.info import EXAMPLE, cascade_listing, model_entry, model_info
from service.gateway.model_names import ModelNames
from service.gateway.openapi import (
    OPENAPI_PATH,
    answer_like,
    image_bodies,
    json_body,
    stream_bodies,
)
from service.gateway.probes import add_probes
from service.gateway.rerank_endpoint import RerankEndpoint
from service.gateway.stream.endpoint import STREAM_PATH, RerankStream
from service.gateway.stream.response import MEDIA_TYPE
from service.image_api import MissingImagesAnswer, MissingImagesRequest, PutImagesAnswer
from service.limits import Limits
from service.observability.exposition import metrics_page
from service.web.error_response import set_error_writer
from service.web.static_files import StaticContent, StaticPage

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody},
    "5XX": {"model": ErrorBody},
}


class _DirectRoute(APIRoute):
    """A route that calls its endpoint with the request alone, without FastAPI's search for
    parameters, of which it has none."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def gateway_routes(
    authenticator: Authenticator,
    stream: RerankStream,
    served: ServedModels,
    names: ModelNames,
    limits: Limits,
    *,
    images: ImagesEndpoint,
    feedback: FeedbackEndpoint,
    metrics_public: bool = False,
    pages: Sequence[StaticPage] = (),
) -> APIRouter:
    """Every route of the gateway except those of health and of reranking.

    With `metrics_public`, `/metrics` requires no key. `pages` require none, and the OpenAPI
    document, which they read, requires one only where there are no pages.
    """
    requires_key = [Depends(authenticator.authenticate)]
    guarded = APIRouter(dependencies=requires_key)
    _add_stream(guarded, stream)
    _add_images(guarded, images)
    add_feedback(guarded, feedback, _ERRORS)
    _add_models(guarded, served, names)
    _add_info(guarded, served, limits)

    probes = APIRouter()
    add_probes(probes)

    measured = APIRouter(dependencies=[] if metrics_public else requires_key)
    _add_metrics(measured)

    router = APIRouter()
    _add_openapi(router if pages else guarded)
    router.include_router(guarded)
    router.include_router(measured)
    _add_pages(router, pages)
    router.include_router(probes)
    return router


def add_reranking(
    router: APIRouter, endpoint: RerankEndpoint, authenticator: Authenticator
) -> None:
    """Add the routes of every dialect.

    They belong into an app's own router: FastAPI looks through each router that is included at
    every request.
    """
    for path, dialects in DIALECTS.items():
        _add_reranking(router, path, dialects, endpoint, authenticator)


def _add_reranking(
    router: APIRouter,
    path: str,
    dialects: Sequence[Dialect],
    endpoint: RerankEndpoint,
    authenticator: Authenticator,
) -> None:
    """Add the route of a path. Errors before the body is read are written in its last dialect."""

    async def rerank(request: Request) -> Response:
        """Order documents by their relevance to a query; texts, images, or both on either side."""
        set_error_writer(request, dialects[-1].error_body)
        await authenticator.authenticate(request)
        return await endpoint.serve(request, dialects)

    router.add_api_route(
        path,
        rerank,
        methods=["POST"],
        response_model=None,
        responses=_ERRORS,
        tags=["rerank"],
        name=f"rerank {path}",
        summary="Rerank",
        route_class_override=_DirectRoute,
    )


def _add_stream(router: APIRouter, stream: RerankStream) -> None:
    @router.post(
        STREAM_PATH,
        tags=["rerank"],
        responses=_ERRORS,
        response_class=Response,
        openapi_extra=stream_bodies(MEDIA_TYPE),
        summary="Rerank (a stream of requests)",
    )
    async def rerank_stream(request: Request) -> Response:
        """Answer requests that are lines of the body (NDJSON), as they finish, behind all other
        requests.

        A line is a request with an `id`; the line that answers it has the same `id`, and its
        `results` or an error of its own.
        """
        return await stream.serve(request)


def _add_images(router: APIRouter, images: ImagesEndpoint) -> None:
    @router.put(
        IMAGES_PATH,
        tags=["images"],
        responses=_ERRORS,
        response_model=PutImagesAnswer,
        openapi_extra=image_bodies(),
        summary="Store images",
    )
    async def put(request: Request) -> Response:
        """Store one image, which is the body, or many of a multipart body, whatever their names.

        Requests may then refer to each by its `digest`. A bad image of many is an entry with a
        `code`, and the others are stored.
        """
        return await images.put(request)

    @router.post(
        MISSING_PATH,
        tags=["images"],
        responses=_ERRORS,
        response_model=MissingImagesAnswer,
        openapi_extra=json_body(MissingImagesRequest),
        summary="Images that are not stored",
    )
    async def missing(request: Request) -> Response:
        """The digests among those sent that requests cannot refer to yet."""
        return await images.missing(request)


def _add_models(router: APIRouter, served: ServedModels, names: ModelNames) -> None:
    entry = model_entry(EXAMPLE.model, EXAMPLE)
    one, many = answer_like(entry), answer_like(_model_list([entry]))

    @router.get("/v1/models", tags=["models"], responses=_ERRORS | many)
    async def models(request: Request) -> Response:
        """The served models that the caller may use, and aliases for them, in OpenAI's shape.

        A cascade that is not served is listed with the reason. Where workers are started by
        requests, the models that were served last are listed with `ready: false` while there is
        none.
        """
        caller = caller_of(request)
        described, readiness = _described(request, served)
        described.model()  # raises where there is nothing to list
        entries = [
            model_entry(name, described.model(model)) | readiness
            for name, model in names.over(described).usable(caller).items()
        ]
        listed = {entry["id"]: entry for entry in entries}
        for name, cascade in served.cascades(caller.may_use).items():
            entry = listed.get(name) or cascade_listing(name)
            listed[name] = entry | {"cascade": cascade}
        return JSONResponse(_model_list(list(listed.values())))

    @router.get("/v1/models/{model:path}", tags=["models"], responses=_ERRORS | one)
    async def model(request: Request, model: str) -> Response:
        """One served model, or an alias for one, in OpenAI's shape."""
        described, readiness = _described(request, served)
        found = names.over(described).find(caller_of(request), model)
        return JSONResponse(model_entry(model, found) | readiness)


def _described(
    request: Request, served: ServedModels
) -> tuple[ServedModels | LastServed, dict[str, object]]:
    """The models to describe, and a field that says where none of them is ready: where requests
    wait for a worker, they are those that were served last."""
    if served.ready() or not request.app.state.is_ready():
        return served, {}
    return served.last(), {"ready": False}


def _model_list(entries: Sequence[dict[str, object]]) -> dict[str, object]:
    return {"object": "list", "data": list(entries)}


def _add_info(router: APIRouter, served: ServedModels, limits: Limits) -> None:
    answers = answer_like(model_info(limits, EXAMPLE))

    @router.get("/meta", include_in_schema=False)  # Weaviate asks for it here
    @router.get("/info", tags=["models"], responses=_ERRORS | answers)
    async def info(request: Request) -> Response:
        """The limits of a request, the first model that the caller may use, and cascades."""
        caller = caller_of(request)
        described, readiness = _described(request, served)
        default = described.model()
        usable = [name for name in (default.model, *described.names()) if caller.may_use(name)]
        if not usable:
            raise Forbidden
        cascades = served.cascades(caller.may_use)
        shown: dict[str, object] = {"cascades": cascades} if cascades else {}
        return JSONResponse(model_info(limits, described.model(usable[0])) | shown | readiness)


def _add_metrics(router: APIRouter) -> None:
    @router.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Prometheus' text format, or OpenMetrics."""
        return await metrics_page(request)


def _add_pages(router: APIRouter, pages: Sequence[StaticPage]) -> None:
    """Add the pages; the address without a path, which people type, leads to the first of them."""
    for page in pages:
        router.include_router(page.router())
    if not pages:
        return

    @router.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse(pages[0].path.removeprefix("/"))


def _add_openapi(router: APIRouter) -> None:
    contents: list[StaticContent] = []

    @router.get(OPENAPI_PATH, include_in_schema=False)
    async def openapi(request: Request) -> Response:
        if not contents:
            body = json.dumps(request.app.openapi(), ensure_ascii=False).encode()
            contents.append(StaticContent.of(body, "application/json"))
        return contents[0].response(request)
