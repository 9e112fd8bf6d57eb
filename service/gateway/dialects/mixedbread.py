"""Mixedbread's dialect: `input` in the request, `data` with scores in the answer.

It reads what the service's own dialect reads, under Mixedbread's names. The module depends on no
HTTP. Invariant: `input` of a result is a text, and never an image's bytes.

Source: Mixedbread's reference of `POST /v1/reranking`, and its Python client 0.54.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.api import AnswerMeta, DocumentError, Options, ResultMeta, Usage
from service.errors import BadRequest, Loc
from service.fields import TopN
from service.gateway.dialects import native
from service.gateway.dialects.answers import answer_meta, document_errors, results, usage
from service.gateway.dialects.dialect import Dialect, Example, OnError, RequestMarks
from service.gateway.dialects.fields.locations import moved
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.fields.validation import item_or_error
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.items import Item
from service.limits import Limits

_NAMES = {"input": "documents", "return_input": "return_documents", "top_k": "top_n"}


class MixedbreadRequest(Options):
    """A request of Mixedbread's clients, with the service's own fields where a client sends
    them."""

    query: Item
    input: list[Item] = Field(
        min_length=1,
        description="Texts, content parts, or objects whose `rank_fields` are ranked.",
    )
    top_k: TopN | None = Field(None, description="Maximum number of results; 0: all.")
    return_input: bool = Field(False, description="Return the text of each result.")


@dataclass(slots=True, kw_only=True)
class MixedbreadResult:
    """One ranked document; `input` is its text."""

    index: int
    score: float
    input: str | None = None
    object: Literal["rank_result"] = "rank_result"
    logit: float
    probability: float | None = None
    id: str | int | None = None
    metadata: dict[str, Any] | None = None
    meta: ResultMeta


class MixedbreadAnswer(BaseModel):
    """The answer in Mixedbread's shape, with the service's own `errors` and `meta`."""

    object: Literal["list"] = "list"
    data: list[MixedbreadResult]
    model: str
    usage: Usage
    top_k: int = Field(description="The number of results that were asked for, or could be given.")
    return_input: bool
    id: str
    errors: list[DocumentError]
    meta: AnswerMeta


def _matches(marks: RequestMarks) -> bool:
    return "input" in marks.fields


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    return native.read(body, limits, on_error, names=_NAMES, item=_input)


def _input(value: Any, at: Loc) -> Item | BadRequest:
    """A document from its JSON value, which may be one content part."""
    is_part = isinstance(value, dict) and "type" in value
    return item_or_error([value] if is_part else value, at)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> MixedbreadAnswer:
    data = [
        MixedbreadResult(
            index=each.index,
            score=each.relevance_score,
            input=each.document.text if each.document else None,
            logit=each.logit,
            probability=each.probability,
            id=each.id,
            metadata=each.metadata,
            meta=each.meta,
        )
        for each in results(query, result)
    ]
    most = len(query.documents)
    return MixedbreadAnswer(
        data=data,
        model=result.model.model,
        usage=usage(result),
        top_k=min(query.top_n or most, most),
        return_input=query.return_documents,
        id=request_id,
        errors=document_errors(result),
        meta=answer_meta(query, result),
    )


MIXEDBREAD = Dialect(
    name="mixedbread",
    title="Mixedbread",
    matches=_matches,
    fields=READ | _NAMES.keys(),
    read=_read,
    write=_write,
    request=MixedbreadRequest,
    answer=MixedbreadAnswer,
    examples=(
        Example(
            "Mixedbread's client: input, the answer in data",
            {
                "query": "a red circle",
                "input": ["a blue square", "a red circle", "a list of numbers"],
                "top_k": 2,
                "return_input": True,
            },
        ),
        Example(
            "Mixedbread's client: content parts",
            {
                "query": "a red circle",
                "input": [
                    {"type": "image_url", "image_url": {"url": BLUE_SQUARE}},
                    {"type": "image_url", "image_url": {"url": RED_CIRCLE}},
                    {"type": "text", "text": "a list of numbers"},
                ],
            },
        ),
    ),
    relocate=moved({"documents": ("input",)}),
    documents="input",
)
