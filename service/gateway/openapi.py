"""The OpenAPI document: the routes as FastAPI describes them, with the request, the answer and the
examples of every dialect.

Depends on the dialects' own types, not on what reads the document. Invariant: the document does not
depend on the caller, and each of its examples is a request that succeeds whatever model is served.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from service.gateway.dialects.catalogue import DIALECTS
from service.gateway.dialects.dialect import Dialect
from service.gateway.images.endpoint import IMAGE_TYPES, MULTIPART

OPENAPI_PATH = "/openapi.json"
_PATHS_WITHOUT_KEY = ("/health/live", "/health/ready")
_REFERENCES = "#/components/schemas/{model}"
STREAM_EXAMPLE = """\
{"id": "first", "query": "a red circle", "documents": ["a blue square", "a red circle"]}
{"id": "second", "query": "a list of numbers", "documents": ["1, 2, 3", "a red circle"], "top_n": 1}
{"id": "third", "query": "a line that is wrong", "documents": []}
"""
"""A body of the stream: two requests that succeed, and one that fails alone."""
_CONVERTER = re.compile(r":\w+(?=})")
"""The type of a parameter in a route's path, which is no part of a path in OpenAPI."""
_PARAMETER = re.compile(r"{(\w+)")
_ABOUT = (
    "Reranks texts, images, and both. The same reranker answers in the shapes of several vendors:"
    " the path, the names of a request's fields and its headers decide which."
)


def openapi_document(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The document, made once; `keys` if the gateway requires API keys.

    FastAPI does not know the types of the reranking routes, because the endpoint parses the body
    itself: they are added here.
    """
    if app.openapi_schema:
        return app.openapi_schema

    document = get_openapi(
        title=app.title, version=app.version, description=_ABOUT, routes=app.routes
    )
    references = _add_schemas(document["components"]["schemas"])
    for path, dialects in DIALECTS.items():
        requests = [references[path, number, "validation"] for number in range(len(dialects))]
        answers = [references[path, number, "serialization"] for number in range(len(dialects))]
        operation = document["paths"][_CONVERTER.sub("", path)]["post"]
        for name in _PARAMETER.findall(path):
            operation.setdefault("parameters", []).append(_path_parameter(name))
        _describe(operation, dialects, _any_of(requests), _any_of(answers))

    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        for path in _PATHS_WITHOUT_KEY:
            document["paths"][path]["get"]["security"] = []

    app.openapi_schema = document
    return document


def stream_bodies(media_type: str) -> dict[str, Any]:
    """The request body and answer of a stream of lines, for its operation in the document."""
    lines = {"type": "string", "description": "JSON objects, one a line."}
    example = {"lines": {"summary": "Two requests, and a bad line", "value": STREAM_EXAMPLE}}
    request = {"required": True, "content": {media_type: {"schema": lines, "examples": example}}}
    answer = {"description": "An answer or an error a line", "content": {media_type: {}}}
    return {"requestBody": request, "responses": {"200": answer}}


def image_bodies() -> dict[str, Any]:
    """The request body of images: one, or several parts."""
    binary = {"type": "string", "format": "binary"}
    one = {media_type: {"schema": binary} for media_type in IMAGE_TYPES}
    images = {"type": "array", "items": binary}
    many = {"schema": {"type": "object", "properties": {"images": images}}}
    return {"requestBody": {"required": True, "content": {**one, MULTIPART: many}}}


def json_body(*kinds: type[BaseModel], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    """The request body of a route that parses JSON itself, of one of some kinds."""
    schema = _any_of([_inlined(kind.model_json_schema()) for kind in kinds])
    shown = {"schema": schema} | ({"examples": examples} if examples else {})
    return {"requestBody": {"required": True, "content": {"application/json": shown}}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its definitions where they are referred to: references would be to the
    document's."""
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inline(definitions[value["$ref"].rpartition("/")[2]])
        return {name: inline(each) for name, each in value.items()}

    inlined: dict[str, Any] = inline(schema)
    return inlined


def answer_like(example: dict[str, object]) -> dict[int | str, dict[str, Any]]:
    """A successful answer by its example, for `responses` of a route."""
    content = {"schema": {"type": "object"}, "example": example}
    return {200: {"content": {"application/json": content}}}


def _add_schemas(schemas: dict[str, Any]) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Add the types of all dialects to the document's schemas.

    Returns a reference to the type of each dialect's request ("validation") and answer
    ("serialization"), by the path and by the dialect's number there.
    """
    adapters: list[tuple[tuple[str, int], Literal["validation", "serialization"], Any]] = []
    for path, dialects in DIALECTS.items():
        for number, dialect in enumerate(dialects):
            adapters.append(((path, number), "validation", TypeAdapter(dialect.request)))
            adapters.append(((path, number), "serialization", TypeAdapter(dialect.answer)))

    references, definitions = TypeAdapter.json_schemas(adapters, ref_template=_REFERENCES)
    schemas |= definitions.get("$defs", {})
    return {(*key, mode): reference for (key, mode), reference in references.items()}


def _describe(
    operation: dict[str, Any],
    dialects: Sequence[Dialect],
    request: dict[str, Any],
    answer: dict[str, Any],
) -> None:
    """Add the dialects of a path, and the bodies of its requests and answers, to its operation."""
    titles = dict.fromkeys(dialect.title for dialect in dialects)
    operation["summary"] = f"Rerank ({', '.join(titles)})"
    content = {"schema": request, "examples": _examples(dialects)}
    operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    operation["responses"]["200"]["content"] = {"application/json": {"schema": answer}}

    headers: set[str] = set()
    for dialect in dialects:
        for example in dialect.examples:
            headers |= example.headers.keys()
    for name in sorted(headers):
        header = {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        operation.setdefault("parameters", []).append(header)


def _path_parameter(name: str) -> dict[str, Any]:
    """A parameter in a path. The example is a name that stands for any model."""
    schema = {"type": "string", "example": "default/not-specified"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A schema of values that conform to one of these, which may repeat each other."""
    distinct: list[dict[str, Any]] = []
    for schema in schemas:
        if schema not in distinct:
            distinct.append(schema)
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def _examples(dialects: Sequence[Dialect]) -> dict[str, Any]:
    """The examples of a path's dialects by name; those of its last dialect, which takes what no
    other one does, come first."""
    examples: dict[str, Any] = {}
    for dialect in (dialects[-1], *dialects[:-1]):
        for number, example in enumerate(dialect.examples, 1):
            summary = example.summary
            if example.headers:
                sent = ", ".join(f"{name}: {value}" for name, value in example.headers.items())
                summary = f"{summary} (with the header {sent})"
            examples[f"{dialect.name}-{number}"] = {"summary": summary, "value": example.body}
    return examples
