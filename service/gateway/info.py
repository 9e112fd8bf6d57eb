"""Descriptions of the gateway for clients: its models, the limits of a request, and the OpenAPI
document.

Holds shapes alone; access is checked elsewhere. Invariant: a description does not depend on the
caller.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api import RerankRequest
from service.limits import Limits
from service.wire import WorkerInfo

TITLE = "gmr-rerank"
OPENAPI_PATH = "/openapi.json"
_RERANK_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
"""Paths whose requests may be in the service's own shape."""
_PATHS_WITHOUT_KEY = ("/health/live", "/health/ready")


def model_entry(name: str, model: str) -> dict[str, object]:
    """An entry of OpenAI's model list. For an alias, `root` is the model it stands for, as in
    vLLM."""
    return {"id": name, "object": "model", "created": 0, "owned_by": TITLE, "root": model}


def model_info(limits: Limits, model: WorkerInfo) -> dict[str, object]:
    """The answer of `/info` for a model."""
    images = model.images
    model_limits = {"max_pair_tokens": model.max_pair_tokens}
    if images:
        model_limits |= {
            "image_cell": images.cell,
            "image_min_pixels": images.min_pixels,
            "image_max_pixels": images.max_pixels,
        }

    return {
        "model": model.model,
        "model_digest": model.digest,
        "version": model.version or None,
        "family": model.family,
        "template": model.template,
        "default_instruction": model.default_instruction,
        "reads": ["text", "image"] if images else ["text"],
        "read_out": model.read_out or None,
        "limits": limits.model_dump() | model_limits,
        "versions": {TITLE: version(TITLE), "engine": model.engine},
        "engine": {"dtype": model.dtype, "device": model.device},
    }


def openapi_page(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The OpenAPI document, made once; `keys` if the gateway requires API keys.

    FastAPI has no schema of the request, because the endpoint parses the body itself: it is added
    here.
    """
    if app.openapi_schema:
        return app.openapi_schema

    page = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schema = RerankRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    page["components"]["schemas"] |= schema.pop("$defs") | {"RerankRequest": schema}

    content = {"application/json": {"schema": {"$ref": "#/components/schemas/RerankRequest"}}}
    for path in _RERANK_PATHS:
        page["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}

    if keys:
        page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        page["security"] = [{"key": []}]
        for path in _PATHS_WITHOUT_KEY:
            page["paths"][path]["get"]["security"] = []

    app.openapi_schema = page
    return page
