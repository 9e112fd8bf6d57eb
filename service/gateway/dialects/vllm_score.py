"""The dialect of vLLM's `/score`: one query for all documents, or one for each, and a score for
each pair in the order of the request.

It reads what the service's own dialect reads, under one of vLLM's pairs of names. The module
depends on no HTTP. Invariant: where nothing was skipped, the score at an index is that of the pair
at that index.

Source: vLLM 0.32, `entrypoints/pooling/scoring/protocol.py` and `utils.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.api import AnswerMeta, DocumentError, Options, Usage
from service.errors import InvalidRequest, RerankError
from service.gateway.dialects import native
from service.gateway.dialects.answers import answer_meta, document_errors, results, usage
from service.gateway.dialects.dialect import (
    Dialect,
    Example,
    OnError,
    RequestMarks,
    any_request,
)
from service.gateway.dialects.fields.locations import moved
from service.gateway.dialects.fields.messages import REQUIRED
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.fields.validation import item_or_error, vendor_options
from service.gateway.dialects.openai_error import write_openai_error
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.items import Item
from service.limits import Limits

_WITHOUT_EFFECT = (
    "top_n",
    "top_k",
    "min_score",
    "min_score_on",
    "return_documents",
    "return_text",
    "rank_fields",
    "query",
    "documents",
)
"""Fields of the service's own requests that mean nothing here; two of them unless a side has the
name."""


class _ScoreOptions(BaseModel):
    use_activation: bool | None = Field(
        None, description="false: scores are logits instead of probabilities."
    )
    activation: bool | None = Field(None, description="An older name of `use_activation`.")

    def gives_logits(self) -> bool:
        return False in (self.use_activation, self.activation)


class _ScoreRequest(Options, _ScoreOptions):
    """A request of vLLM's clients, with the service's own options."""


class QueriesAndDocuments(_ScoreRequest):
    """One query for all documents, or as many queries as documents."""

    queries: Item | list[Item]
    documents: Item | list[Item]


class QueriesAndItems(_ScoreRequest):
    """One query for all items, or as many queries as items."""

    queries: Item | list[Item]
    items: Item | list[Item]


class Data(_ScoreRequest):
    """One query for all of `data_2`, or as many queries."""

    data_1: Item | list[Item]
    data_2: Item | list[Item]


class Texts(_ScoreRequest):
    """One query for all of `text_2`, or as many queries."""

    text_1: Item | list[Item]
    text_2: Item | list[Item]


@dataclass(slots=True, kw_only=True)
class PairScore:
    """The score of one pair."""

    index: int
    object: Literal["score"] = "score"
    score: Annotated[
        float, Field(description="`relevance_score`; with `use_activation: false`, `logit`.")
    ]
    logit: float
    probability: float | None = None


class ScoreAnswer(BaseModel):
    """The answer in vLLM's shape, with the service's own `errors` and `meta`."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: Usage
    errors: list[DocumentError]
    meta: AnswerMeta


def _read(
    body: dict[str, Any], limits: Limits, on_error: OnError, *, queries: str, documents: str
) -> RerankQuery:
    """The query of a request with some names of its two sides.

    The operator's default of `on_error` does not apply: clients expect a score for each pair.
    """
    sent = {name: value for name, value in body.items() if value is not None}
    sides = _sides(sent, queries, documents)
    unused = [name for name in _WITHOUT_EFFECT if sent.pop(name, None) is not None]
    options = vendor_options(_ScoreOptions, sent)

    own_queries = _queries(sides[queries])
    query = native.read(
        sent | {"query": _shared(own_queries), "documents": sides[documents]},
        limits,
        "fail",
        beside=_ScoreOptions.model_fields,
    )

    warnings = [f"{name} has no effect here." for name in unused]
    query = replace(
        query,
        warnings=(*query.warnings, *warnings),
        raw_scores=options.gives_logits(),
    )
    return query if len(own_queries) == 1 else _paired(query, own_queries)


def _sides(sent: dict[str, Any], queries: str, documents: str) -> dict[str, list[Any]]:
    """Take the values of both sides out of what was sent, each as a list.

    Raises `InvalidRequest` where one is missing, and where there are several queries, and not as
    many as documents.
    """
    sides: dict[str, list[Any]] = {}
    for name in (queries, documents):
        value = sent.pop(name, None)
        if value is None:
            raise InvalidRequest(REQUIRED).at((name,))
        sides[name] = value if isinstance(value, list) else [value]

    counts = len(sides[queries]), len(sides[documents])
    if not counts[0]:
        raise InvalidRequest("This must hold at least 1 query.").at((queries,))
    if counts[0] > 1 and counts[0] != counts[1]:
        message = (
            f"This must have as many entries as {queries}, or {queries} must have one:"
            f" they have {counts[0]}, and this has {counts[1]}."
        )
        raise InvalidRequest(message).at((documents,))
    return sides


def _queries(values: list[Any]) -> list[Item | RerankError]:
    """The queries of a request, each an item or its error."""
    if len(values) == 1:
        return [item_or_error(values[0], ("query",))]
    return [item_or_error(each, ("queries", index)) for index, each in enumerate(values)]


def _shared(queries: Sequence[Item | RerankError]) -> Item:
    """The first query that could be read; raises the error of the first one where there is none."""
    for query in queries:
        if isinstance(query, Item):
            return query

    assert isinstance(queries[0], RerankError), "there is at least one query"
    raise queries[0]


def _paired(query: RerankQuery, queries: Sequence[Item | RerankError]) -> RerankQuery:
    """The query with one for each document. The error of a query is its document's, too."""
    documents = list(query.documents)
    for index, own_query in enumerate(queries):
        if isinstance(own_query, RerankError):
            documents[index] = own_query
    return replace(query, query=queries, documents=documents)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> ScoreAnswer:
    data: list[PairScore] = []
    for each in results(query, result):
        score = each.logit if query.raw_scores else each.relevance_score
        data.append(
            PairScore(index=each.index, score=score, logit=each.logit, probability=each.probability)
        )

    return ScoreAnswer(
        id=request_id,
        created=int(time.time()),
        model=result.model.model,
        data=sorted(data, key=lambda pair: pair.index),
        usage=usage(result),
        errors=document_errors(result),
        meta=answer_meta(query, result),
    )


def _dialect(name: str, request: type[BaseModel], *examples: Example) -> Dialect:
    """The dialect of one pair of names: the fields of `request` beside the options."""
    queries, documents = _names(request)
    return Dialect(
        name=name,
        title="vLLM score",
        matches=lambda marks: _request_type(marks) is request,
        fields=READ | {queries, documents, *_ScoreOptions.model_fields},
        read=partial(_read, queries=queries, documents=documents),
        write=_write,
        request=request,
        answer=ScoreAnswer,
        examples=examples,
        write_error=write_openai_error,
        relocate=moved({"query": (queries,), "queries": (queries,), "documents": (documents,)}),
        documents=documents,
    )


def _request_type(marks: RequestMarks) -> type[BaseModel] | None:
    """The first of vLLM's requests, in the order in which it tries them, that has both names."""
    for request in (QueriesAndDocuments, QueriesAndItems, Data, Texts):
        if all(name in marks.fields for name in _names(request)):
            return request
    return None


def _names(request: type[BaseModel]) -> list[str]:
    """The names of the queries and of the documents."""
    return [name for name in request.model_fields if name not in _ScoreRequest.model_fields]


_TEXTS = ["a blue square", "a red circle", "a list of numbers"]
_IMAGES = [
    {"content": [{"type": "image_url", "image_url": {"url": BLUE_SQUARE}}]},
    {"content": [{"type": "image_url", "image_url": {"url": RED_CIRCLE}}]},
    {"content": [{"type": "text", "text": "a list of numbers"}]},
]
_QUERIES_AND_DOCUMENTS = _dialect(
    "vllm-score",
    QueriesAndDocuments,
    Example(
        "vLLM: one query, a score for each document",
        {"queries": "a red circle", "documents": _TEXTS},
    ),
)
VLLM_SCORE = (
    _dialect(
        "vllm-score-items",
        QueriesAndItems,
        Example("vLLM: items", {"queries": "a red circle", "items": _TEXTS}),
    ),
    _dialect(
        "vllm-score-data",
        Data,
        Example("vLLM: content parts", {"data_1": "a red circle", "data_2": _IMAGES}),
    ),
    _dialect(
        "vllm-score-text",
        Texts,
        Example(
            "vLLM: a query for each text, and logits",
            {
                "text_1": ["a square", "a circle", "a list"],
                "text_2": _TEXTS,
                "use_activation": False,
            },
        ),
    ),
    replace(_QUERIES_AND_DOCUMENTS, matches=any_request),
)
"""The dialects of vLLM's pairs of names; the last one takes what has none of them."""
