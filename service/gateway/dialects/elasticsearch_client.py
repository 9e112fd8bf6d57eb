"""Elasticsearch as a client: its inference services `cohere`, `jinaai` and `voyageai`, which name
themselves in a header.

Their parsers refuse keys of a result that they do not know: a result has its index, its score and
its document, and nothing else. `results` is for `cohere` and `jinaai`, `data` for `voyageai`. The
module depends on no HTTP. Invariant: `results` is ahead of every value that is an object, where a
parser stops to look for it.

Source: `CohereRankedResponseEntity`, `VoyageAIRerankResponseEntity` and their requests in
Elasticsearch 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from service.api import AnswerMeta, DocumentError, RerankRequest, ReturnedDocument, Usage
from service.gateway.dialects import native
from service.gateway.dialects.answers import answer_meta, document_errors, results, usage
from service.gateway.dialects.dialect import Dialect, Example, OnError, RequestMarks
from service.gateway.dialects.fields.names import READ, SYNONYMS
from service.gateway.domain import RerankQuery, RerankResult
from service.limits import Limits

_HEADER = "request-source"
_SOURCE = "unspecified:elasticsearch"
_NAMES = {name: SYNONYMS[name] for name in ("top_k", "truncation")}


@dataclass(slots=True, kw_only=True)
class ElasticsearchCohereResult:
    """One ranked document for `cohere` and `jinaai`."""

    index: int
    relevance_score: float
    document: ReturnedDocument | None = None


@dataclass(slots=True, kw_only=True)
class ElasticsearchVoyageResult:
    """One ranked document for `voyageai`."""

    index: int
    relevance_score: float
    document: str | None = None


class ElasticsearchClientAnswer(BaseModel):
    """The answer of the service's own dialect without the service's own keys in its results."""

    id: str
    object: Literal["rerank"] = "rerank"
    model: str
    results: list[ElasticsearchCohereResult]
    data: list[ElasticsearchVoyageResult]
    errors: list[DocumentError]
    usage: Usage
    meta: AnswerMeta


def _matches(marks: RequestMarks) -> bool:
    return marks.headers.get(_HEADER) == _SOURCE


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    return native.read(body, limits, on_error, names=_NAMES)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> ElasticsearchClientAnswer:
    found: list[ElasticsearchCohereResult] = []
    data: list[ElasticsearchVoyageResult] = []
    for each in results(query, result):
        scored: dict[str, Any] = {"index": each.index, "relevance_score": each.relevance_score}
        found.append(ElasticsearchCohereResult(**scored, document=each.document))
        text = each.document.text if each.document else None
        data.append(ElasticsearchVoyageResult(**scored, document=text))

    return ElasticsearchClientAnswer(
        id=request_id,
        model=result.model.model,
        results=found,
        data=data,
        errors=document_errors(result),
        usage=usage(result),
        meta=answer_meta(query, result),
    )


ELASTICSEARCH_CLIENT = Dialect(
    name="elasticsearch-client",
    title="Elasticsearch services",
    matches=_matches,
    fields=READ,
    read=_read,
    write=_write,
    request=RerankRequest,
    answer=ElasticsearchClientAnswer,
    examples=(
        Example(
            "Elasticsearch's service cohere: results without keys that its parser refuses",
            {
                "model": "default/not-specified",
                "query": "a red circle",
                "documents": ["a blue square", "a red circle", "a list of numbers"],
                "return_documents": True,
            },
            {"Request-Source": _SOURCE},
        ),
    ),
)
