"""DashScope's dialect: query and documents in `input`, options in `parameters`, results in
`output`.

It reads what the service's own dialect reads, out of DashScope's two objects. The module depends on
no HTTP. Invariant: a field of these objects means what it means in the service's own dialect.

Source: Alibaba Cloud Model Studio's reference of text reranking, and its Python client 2.0.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from service.api import AnswerMeta, DocumentError, Options, Result, Usage
from service.errors import BadRequest, InvalidRequest, Loc, path_of
from service.gateway.dialects import native
from service.gateway.dialects.answers import answer_meta, document_errors, results, usage
from service.gateway.dialects.dialect import Dialect, Example, OnError, any_request
from service.gateway.dialects.fields.locations import moved, relocated
from service.gateway.dialects.fields.messages import REQUIRED
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.items import Item
from service.limits import Limits

_OBJECTS = ("parameters", "input")
_NAMES = {"instruct": "instruction"}


class DashScopeInput(BaseModel):
    """The query and the documents: texts, or objects with a text, an image or both."""

    query: Item
    documents: list[Item] = Field(min_length=1)


class DashScopeParameters(Options):
    """The options of a request, with the service's own."""

    instruct: str | None = Field(None, description="The same as `instruction`.")


class DashScopeRequest(BaseModel):
    """A request of DashScope's clients."""

    model: str | None = None
    input: DashScopeInput
    parameters: DashScopeParameters | None = None


class DashScopeOutput(BaseModel):
    """The results, best first."""

    results: list[Result]


class DashScopeAnswer(BaseModel):
    """The answer in DashScope's shape, with the service's own `errors` and `meta`."""

    output: DashScopeOutput
    usage: Usage
    request_id: str
    model: str
    errors: list[DocumentError]
    meta: AnswerMeta


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    if body.get("input") is None:
        raise InvalidRequest(REQUIRED).at(("input",))

    fields: dict[str, Any] = {}
    places: dict[str, Loc] = {}
    beside = {name: value for name, value in body.items() if name not in _OBJECTS}
    _add(fields, places, beside, ())
    for object_name in _OBJECTS:
        inner = body.get(object_name, {})
        if inner is None:
            continue
        if not isinstance(inner, dict):
            raise InvalidRequest("This must be an object.").at((object_name,))
        _add(fields, places, inner, (object_name,))

    try:
        return native.read(fields, limits, on_error, names=_NAMES)
    except BadRequest as error:
        raise relocated(error, moved(places)) from None


def _add(fields: dict[str, Any], places: dict[str, Loc], inner: dict[str, Any], at: Loc) -> None:
    """Add the fields of an object of the request, and their locations.

    Raises `InvalidRequest` where another object has the same field with another value.
    """
    for name, value in inner.items():
        if fields.get(name) is None:
            fields[name], places[name] = value, (*at, name)
        elif value not in (None, fields[name]):
            other = path_of(places[name])
            raise InvalidRequest(f"This must equal {other} where both are sent.").at((*at, name))


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> DashScopeAnswer:
    return DashScopeAnswer(
        output=DashScopeOutput(results=results(query, result)),
        usage=usage(result),
        request_id=request_id,
        model=result.model.model,
        errors=document_errors(result),
        meta=answer_meta(query, result),
    )


DASHSCOPE = Dialect(
    name="dashscope",
    title="DashScope",
    matches=any_request,
    fields=READ | {*_OBJECTS, ("input", "query"), ("input", "documents")},
    read=_read,
    write=_write,
    request=DashScopeRequest,
    answer=DashScopeAnswer,
    examples=(
        Example(
            "DashScope's client: input and parameters, the answer in output",
            {
                "model": "default/not-specified",
                "input": {
                    "query": "a red circle",
                    "documents": ["a blue square", "a red circle", "a list of numbers"],
                },
                "parameters": {"top_n": 2, "return_documents": True},
            },
        ),
        Example(
            "DashScope's client: images",
            {
                "model": "default/not-specified",
                "input": {
                    "query": {"text": "a red circle"},
                    "documents": [
                        {"image": BLUE_SQUARE},
                        {"image": RED_CIRCLE},
                        {"text": "a list of numbers"},
                    ],
                },
            },
        ),
    ),
    relocate=moved(
        {
            "query": ("input", "query"),
            "documents": ("input", "documents"),
            "instruction": ("parameters", "instruct"),
        }
    ),
    documents=("input", "documents"),
)
