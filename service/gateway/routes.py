"""The gateway's HTTP: what comes in, what goes out. Reads a request, has it answered, writes the answer; decides nothing else."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import from_json
from starlette.responses import JSONResponse

from service.asgi import read_body, unless_gone
from service.contracts import ErrorBody, Item, RerankAnswer, WorkerInfo
from service.errors import InvalidRequest, UnsupportedMediaType
from service.gateway.admission import Admission
from service.gateway.costs import admission_tokens
from service.gateway.dialects import native
from service.gateway.rerank import Ask, Outcome, Reranker
from service.gateway.settings import GatewaySettings
from service.gateway.workers import Workers
from service.telemetry import DOCUMENTS, ERRORS, TOKENS, request_id

RERANK_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}


def gateway_routes(settings: GatewaySettings, reranker: Reranker, admission: Admission, workers: Workers) -> APIRouter:
    """Every route of the gateway but health."""
    router = APIRouter()
    limits = settings.limits()

    async def rerank(request: Request) -> Response:
        """Order documents by their relevance to a query; texts, images, or both on either side."""
        arrived = asyncio.get_running_loop().time()
        _expect_json(request)
        body = await read_body(request, limits.max_body_bytes)
        ask = await anyio.to_thread.run_sync(lambda: native.read(_json_object(body), limits))
        until = arrived + (ask.timeout_ms or settings.default_timeout_ms) / 1000

        async def answer() -> RerankAnswer:
            readable = [document for document in ask.documents if isinstance(document, Item)]
            async with admission.admit(admission_tokens(ask.query, readable, workers.model(ask.model)), until):
                outcome = await reranker.rerank(ask, until)
            _count(ask, outcome)
            return native.write(ask, outcome, request_id.get())

        answered = await unless_gone(request, answer())
        return Response(answered.model_dump_json(exclude_none=True), media_type="application/json")

    for path in RERANK_PATHS:
        router.add_api_route(
            path, rerank, methods=["POST"], response_model=RerankAnswer, responses=_ERRORS, tags=["rerank"], name=f"rerank {path}"
        )

    @router.get("/v1/models", tags=["models"])
    async def models() -> Response:
        """The served models, in OpenAI's shape."""
        return JSONResponse({"object": "list", "data": [_listed(name) for name in workers.names()]})

    @router.get("/info", tags=["models"], responses=_ERRORS)
    async def info() -> Response:
        """What a client needs to size its calls."""
        return JSONResponse(_described(settings, workers.model()))

    @router.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def _expect_json(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise InvalidRequest("The request body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return value


def _count(ask: Ask, outcome: Outcome) -> None:
    DOCUMENTS.observe(len(ask.documents))
    scored = [ranked.score for ranked in outcome.ranked if not ranked.cached]
    reused = sum(score.reused_tokens for score in scored)
    TOKENS.labels("cached").inc(sum(ranked.score.prompt_tokens for ranked in outcome.ranked if ranked.cached))
    TOKENS.labels("prefix").inc(reused)
    TOKENS.labels("computed").inc(sum(score.prompt_tokens for score in scored) - reused)
    for _, error in outcome.errors:
        ERRORS.labels(error.code).inc()


def _listed(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "gmr-rerank"}


def _described(settings: GatewaySettings, model: WorkerInfo) -> dict[str, object]:
    images = model.images
    return {
        "model": model.model,
        "model_digest": model.digest,
        "family": model.family,
        "template": model.template,
        "default_instruction": model.default_instruction,
        "limits": settings.limits().model_dump()
        | {
            "max_pair_tokens": model.max_pair_tokens,
            "image_cell": images.cell,
            "image_min_pixels": images.min_pixels,
            "image_max_pixels": images.max_pixels,
        },
        "versions": {"gmr-rerank": version("gmr-rerank"), "engine": model.engine},
        "engine": {"dtype": model.dtype, "device": model.device},
    }
