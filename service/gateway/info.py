"""What the gateway says of itself: its models, the limits of a request, and its OpenAPI page.

Knows shapes alone; who may read them is asked elsewhere. Invariant: nothing here depends on who
asks.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api import Limits, RerankRequest
from service.wire import WorkerInfo

TITLE = "gmr-rerank"
OPENAPI_PATH = "/openapi.json"
RERANK_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
_OPEN_PATHS = ("/health/live", "/health/ready")


def listed(name: str, model: str) -> dict[str, object]:
    """A name for a model in OpenAI's shape; `root`, as vLLM has it, is the model that an alias
    stands for."""
    return {"id": name, "object": "model", "created": 0, "owned_by": TITLE, "root": model}


def described(limits: Limits, model: WorkerInfo) -> dict[str, object]:
    """A model as `/info` shows it."""
    images = model.images
    return {
        "model": model.model,
        "model_digest": model.digest,
        "version": model.version or None,
        "family": model.family,
        "template": model.template,
        "default_instruction": model.default_instruction,
        "limits": limits.model_dump()
        | {
            "max_pair_tokens": model.max_pair_tokens,
            "image_cell": images.cell,
            "image_min_pixels": images.min_pixels,
            "image_max_pixels": images.max_pixels,
        },
        "versions": {TITLE: version(TITLE), "engine": model.engine},
        "engine": {"dtype": model.dtype, "device": model.device},
    }


def openapi_page(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The OpenAPI page, with the request's schema, which the handler reads from bytes itself, and
    whether keys are asked for."""
    if not app.openapi_schema:
        page = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schema = RerankRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        page["components"]["schemas"] |= schema.pop("$defs") | {"RerankRequest": schema}
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/RerankRequest"}}}
        for path in RERANK_PATHS:
            page["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
        if keys:
            page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            page["security"] = [{"key": []}]
            for path in _OPEN_PATHS:
                page["paths"][path]["get"]["security"] = []
        app.openapi_schema = page
    return app.openapi_schema
