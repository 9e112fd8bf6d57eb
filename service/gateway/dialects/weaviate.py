"""Weaviate's module `reranker-transformers`: `property` in the request, `scores` in the answer.

Weaviate assigns scores to its objects by their order. The module depends on no HTTP. Invariant: the
answer has a score for each document, in the order of the documents.

Source: `modules/reranker-transformers/clients/ranker.go` of Weaviate 1.3x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, Field

from service.api import AnswerMeta, DocumentError, Options
from service.error_body import flat_body
from service.errors import RerankError
from service.gateway.dialects import native
from service.gateway.dialects.answers import answer_meta, document_errors, returned_text
from service.gateway.dialects.dialect import Dialect, Example, OnError, RequestMarks
from service.gateway.dialects.fields.locations import moved
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.fields.validation import check_string, string_or_error
from service.gateway.domain import RerankQuery, RerankResult
from service.limits import Limits

_PROPERTY = "property"
_WITHOUT_EFFECT = ("top_n", "min_score")
"""Options that would leave a document without a score."""


class WeaviateRequest(Options):
    """A request of `reranker-transformers`, with the service's own fields where a client sends
    them."""

    query: str
    documents: list[str] = Field(min_length=1)
    property: str = Field("", description="Marks the request; has no other effect.")


@dataclass(slots=True, kw_only=True)
class DocumentScore:
    """A document and its `relevance_score`; no score where `errors` lists the document."""

    document: str
    score: float | None = None


class WeaviateAnswer(BaseModel):
    """A score for each document, in the order of the documents."""

    scores: list[DocumentScore]
    model: str
    errors: list[DocumentError]
    meta: AnswerMeta


def _matches(marks: RequestMarks) -> bool:
    return _PROPERTY in marks.fields


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    """The query of a request.

    The operator's default of `on_error` does not apply: Weaviate expects a score for each document.
    """
    check_string(body.get("query"), ("query",))
    query = native.read(body, limits, "fail", item=string_or_error, beside=(_PROPERTY,))

    ignored = [name for name in _WITHOUT_EFFECT if getattr(query, name) is not None]
    warnings = [f"{name} had no effect: every document has a score." for name in ignored]
    return replace(
        query,
        top_n=None,
        min_score=None,
        min_probability=False,
        warnings=(*query.warnings, *warnings),
    )


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> WeaviateAnswer:
    scores = {
        ranked.index: result.model.probability(ranked.score.logit) for ranked in result.ranked
    }
    return WeaviateAnswer(
        scores=[
            DocumentScore(document=returned_text(query, index), score=scores.get(index))
            for index in range(len(query.documents))
        ],
        model=result.model.model,
        errors=document_errors(result),
        meta=answer_meta(query, result),
    )


def _write_error(error: RerankError, request_id: str) -> dict[str, Any]:
    """The flat body, and its message as `error`, which Weaviate shows."""
    return {"error": error.sentence()} | flat_body(error, request_id)


WEAVIATE = Dialect(
    name="weaviate",
    title="Weaviate",
    matches=_matches,
    fields=READ,
    read=_read,
    write=_write,
    request=WeaviateRequest,
    answer=WeaviateAnswer,
    examples=(
        Example(
            "Weaviate's reranker-transformers: property, the answer in scores",
            {
                "query": "a red circle",
                "documents": ["a blue square", "a red circle", "a list of numbers"],
                "property": "",
            },
        ),
    ),
    write_error=_write_error,
    relocate=moved({"documents": ("documents",), "query": ("query",)}, strings=True),
)
