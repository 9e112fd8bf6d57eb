"""Voyage's dialect: `top_k` and `truncation` in the request, `data` in the answer.

It reads what the service's own dialect reads, under Voyage's names. The module depends on no HTTP.
Invariant: `document` is a string, as Voyage's clients expect.

Source: Voyage's Python client 0.5 and its reference of `POST /v1/rerank`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.api import AnswerMeta, DocumentError, RerankRequest, Usage
from service.fields import TopN
from service.gateway.dialects import native
from service.gateway.dialects.answers import (
    TextResult,
    answer_meta,
    document_errors,
    text_results,
    usage,
)
from service.gateway.dialects.dialect import Dialect, Example, OnError, RequestMarks
from service.gateway.dialects.fields.names import READ
from service.gateway.domain import RerankQuery, RerankResult
from service.limits import Limits

_NAMES = {"top_k": "top_n", "truncation": "truncate"}


class VoyageRequest(RerankRequest):
    """A request of Voyage's clients, with the service's own fields where a client sends them."""

    top_k: TopN | None = Field(None, description="Maximum number of results; 0: all.")
    truncation: bool = Field(
        True, description="Cut texts that are too long; otherwise they are refused."
    )


class VoyageAnswer(BaseModel):
    """The answer in Voyage's shape, with the service's own `errors` and `meta`."""

    object: Literal["list"] = "list"
    data: list[TextResult]
    model: str
    usage: Usage
    id: str
    errors: list[DocumentError]
    meta: AnswerMeta


def _matches(marks: RequestMarks) -> bool:
    return not _NAMES.keys().isdisjoint(marks.fields)


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    return native.read(body, limits, on_error, names=_NAMES)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> VoyageAnswer:
    return VoyageAnswer(
        data=text_results(query, result),
        model=result.model.model,
        usage=usage(result),
        id=request_id,
        errors=document_errors(result),
        meta=answer_meta(query, result),
    )


VOYAGE = Dialect(
    name="voyage",
    title="Voyage",
    matches=_matches,
    fields=READ,
    read=_read,
    write=_write,
    request=VoyageRequest,
    answer=VoyageAnswer,
    examples=(
        Example(
            "Voyage's client: top_k and truncation, the answer in data",
            {
                "query": "a red circle",
                "documents": ["a blue square", "a red circle", "a list of numbers"],
                "top_k": 2,
                "truncation": True,
            },
        ),
    ),
)
