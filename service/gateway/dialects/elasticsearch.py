"""The dialect of Elasticsearch's inference API for reranking: items are strings, or objects with
`type`, `format` and `value`.

It reads what the service's own dialect reads, out of Elasticsearch's objects; the path names the
model. The module depends on no HTTP. Invariant: the value of an image is never read as a text.

Source: Elastic's reference of `POST /_inference/rerank/{inference_id}`, 9.6, and its Python client
9.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from service.api import AnswerMeta, DocumentError, Options, Usage
from service.error_body import flat_body
from service.errors import BadRequest, InvalidRequest, Loc, RerankError
from service.gateway.dialects import native
from service.gateway.dialects.answers import answer_meta, document_errors, results, usage
from service.gateway.dialects.dialect import Dialect, Example, OnError, any_request
from service.gateway.dialects.fields.locations import moved, relocated
from service.gateway.dialects.fields.messages import bad_request
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.fields.validation import (
    MAX_OBJECT_FIELDS,
    check_field_counts,
    item_or_error,
)
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.items import Item
from service.limits import Limits

_NAMES = {"input": "documents"}
_SETTINGS = "task_settings"
_TYPES = {
    400: "illegal_argument_exception",
    401: "security_exception",
    403: "security_exception",
    404: "resource_not_found_exception",
}
"""Elasticsearch's types of errors by status; `status_exception` is that of any other."""


class InferenceInput(BaseModel):
    """A text, or an image in base64, as a data URL, or at a URL."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "image"]
    format: Literal["text", "base64", "url"] | None = Field(
        None, description="`text` for a text; `base64` (the default) or `url` for an image."
    )
    value: str

    @model_validator(mode="after")
    def _has_the_format_of_its_type(self) -> Self:
        formats = ("text",) if self.type == "text" else ("base64", "url")
        if self.format is not None and self.format not in formats:
            raise PydanticCustomError("format", "A format of the type.")
        return self

    def is_url(self) -> bool:
        """True if the value is a URL, as its format says or not."""
        return self.value[:64].lstrip().lower().startswith(("http:", "https:"))


class InferenceRequest(Options):
    """A request of Elasticsearch's clients, with the service's own fields where a client sends
    them."""

    query: str | InferenceInput
    input: str | InferenceInput | list[str | InferenceInput]
    task_settings: dict[str, Any] | None = Field(
        None, description="Further options; one that the request has, too, is the request's."
    )


@dataclass(slots=True, kw_only=True)
class InferenceResult:
    """One ranked document."""

    index: int
    relevance_score: float
    text: str | None = None
    logit: float
    probability: float | None = None


class InferenceAnswer(BaseModel):
    """The answer in Elasticsearch's shape, with the service's own `errors` and `meta`."""

    rerank: list[InferenceResult]
    model: str
    usage: Usage
    errors: list[DocumentError]
    meta: AnswerMeta


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    fields = {name: value for name, value in body.items() if value is not None}
    settings = fields.pop(_SETTINGS, {})
    if not isinstance(settings, dict):
        raise InvalidRequest("This must be an object.").at((_SETTINGS,))

    if "query" in fields:
        query = _item(fields["query"], ("query",))
        if isinstance(query, RerankError):
            raise query
        fields["query"] = query

    places = {name: (_SETTINGS, name) for name in settings if name not in fields}
    try:
        return native.read(settings | fields, limits, on_error, names=_NAMES, item=_item)
    except BadRequest as error:
        raise relocated(error, moved(places)) from None


def _item(value: Any, at: Loc) -> Item | BadRequest:
    """An item from a string or an Elasticsearch object, or the error that it is refused with."""
    if isinstance(value, str):
        return item_or_error(value, at)
    try:
        check_field_counts(value, at, MAX_OBJECT_FIELDS)
        sent = InferenceInput.model_validate(value)
    except ValidationError as error:
        return bad_request(error, at)
    except BadRequest as error:
        return error.with_traceback(None)

    if sent.type == "text":
        return item_or_error(sent.value, at)
    if sent.is_url() != (sent.format == "url"):
        message = "This must be a URL where format is url, and base64 or a data URL otherwise."
        return InvalidRequest(message).at((*at, "value"))
    return item_or_error({"image": sent.value}, at)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> InferenceAnswer:
    ranked = [
        InferenceResult(
            index=each.index,
            relevance_score=each.relevance_score,
            text=each.document.text if each.document else None,
            logit=each.logit,
            probability=each.probability,
        )
        for each in results(query, result)
    ]
    return InferenceAnswer(
        rerank=ranked,
        model=result.model.model,
        usage=usage(result),
        errors=document_errors(result),
        meta=answer_meta(query, result),
    )


def _write_error(error: RerankError, request_id: str) -> dict[str, Any]:
    cause = {
        "type": _TYPES.get(error.status, "status_exception"),
        "reason": error.sentence(),
    }
    described = {"error": {"root_cause": [cause], **cause}, "status": error.status}
    return described | flat_body(error, request_id)


def _relocate(loc: Loc) -> Loc:
    """The location in Elasticsearch's request: an image is the value of its object."""
    moved_loc = moved({"documents": ("input",)})(loc)
    return (*moved_loc[:-1], "value") if moved_loc[-1:] == ("image",) else moved_loc


ELASTICSEARCH = Dialect(
    name="elasticsearch",
    title="Elasticsearch inference",
    matches=any_request,
    fields=READ | {*_NAMES, _SETTINGS},
    read=_read,
    write=_write,
    request=InferenceRequest,
    answer=InferenceAnswer,
    examples=(
        Example(
            "Elasticsearch's inference API: objects with type, format and value",
            {
                "query": {"type": "text", "format": "text", "value": "a red circle"},
                "input": ["a blue square", "a red circle", "a list of numbers"],
                "top_n": 2,
                "return_documents": True,
            },
        ),
        Example(
            "Elasticsearch's inference API: images",
            {
                "query": "a red circle",
                "input": [
                    {"type": "image", "format": "base64", "value": BLUE_SQUARE},
                    {"type": "image", "format": "base64", "value": RED_CIRCLE},
                    {"type": "text", "value": "a list of numbers"},
                ],
            },
        ),
    ),
    write_error=_write_error,
    relocate=_relocate,
    documents="input",
    # Elastic's clients refuse an answer without it
    headers={"x-elastic-product": "Elasticsearch"},
)
