"""The service's own dialect, which clients of Cohere, Jina, Infinity, Xinference and vLLM use too.

It depends on no HTTP. Invariant: every message is written in this package, and of a request, only
field names, ids and metadata are repeated.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from service.api import (
    AnswerMeta,
    DocumentError,
    Item,
    RerankAnswer,
    RerankOptions,
    Result,
    ResultMeta,
    ReturnedDocument,
    Usage,
    flat_body,
)
from service.errors import BadRequest, RerankError
from service.gateway.dialects.dialect import Dialect, OnError, any_request
from service.gateway.dialects.field_names import (
    READ,
    refuse_steering_fields,
    unknown_field_warnings,
    with_instruction,
)
from service.gateway.dialects.messages import bad_request
from service.gateway.dialects.rank_fields import with_text
from service.gateway.dialects.validation import (
    MAX_OBJECT_FIELDS,
    check_field_counts,
    check_instruction,
    document_list,
    item_or_error,
)
from service.gateway.domain import RerankQuery, RerankResult, ScoredDocument
from service.limits import Limits

_DOCUMENTS_PER_SEARCH_UNIT = 100
_MAX_RANKED_FIELDS = 1_000
"""Fields of a document where `rank_fields` is sent, which allows fields of its own."""


def read(body: dict[str, Any], limits: Limits, on_error: OnError = "fail") -> RerankQuery:
    """The query in a request's JSON object; raises a `BadRequest` with the locations of what is
    wrong.

    A document that is not valid is kept as its error. `on_error` applies to a request that does not
    set it.
    """
    refuse_steering_fields(body)
    fields = {name: value for name, value in body.items() if value is not None}
    fields, warnings = with_instruction(fields)
    documents = fields.pop("documents", None)

    check_field_counts(fields.get("query"), ("query",), MAX_OBJECT_FIELDS)
    try:
        options = RerankOptions.model_validate(fields)
    except ValidationError as error:
        raise bad_request(error) from None
    check_instruction(options.instruction, limits)

    return RerankQuery(
        query=options.query,
        documents=_documents(documents, options.rank_fields or [], limits),
        model=options.model,
        instruction=options.instruction,
        top_n=options.top_n or None,
        min_score=options.min_score,
        return_documents=options.return_documents,
        truncate=options.truncate == "end",
        skip_errors=(options.on_error or on_error) == "skip",
        timeout_ms=options.timeout_ms,
        cache=options.cache,
        warnings=(*warnings, *unknown_field_warnings(body)),
    )


def write(query: RerankQuery, result: RerankResult, request_id: str) -> RerankAnswer:
    """The answer to a query."""
    tokens = sum(document.score.prompt_tokens for document in result.ranked)
    search_units = math.ceil(len(query.documents) / _DOCUMENTS_PER_SEARCH_UNIT)
    return RerankAnswer(
        id=request_id,
        model=result.model.model,
        results=_results(query, result),
        errors=[
            DocumentError(index=index, code=error.code, message=error.sentence())
            for index, error in result.errors
        ],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        meta=AnswerMeta(
            model_digest=result.model.digest,
            cached_pairs=sum(document.cached for document in result.ranked),
            tokens={"input_tokens": tokens},
            billed_units={"search_units": search_units},
            warnings=list(query.warnings) or None,
        ),
    )


def _results(query: RerankQuery, result: RerankResult) -> list[Result]:
    """The best `top_n` results with a relevance score of at least `min_score`."""
    results: list[Result] = []
    for document in result.ranked[: query.top_n]:
        relevance = result.model.probability(document.score.logit)
        if query.min_score is None or relevance >= query.min_score:
            results.append(_result(query, document, relevance))
    return results


def _result(query: RerankQuery, ranked: ScoredDocument, relevance: float) -> Result:
    document, score = query.documents[ranked.index], ranked.score
    result = Result(
        index=ranked.index,
        relevance_score=relevance,
        logit=score.logit,
        meta=ResultMeta(
            prompt_tokens=score.prompt_tokens,
            image_tokens=score.image_tokens,
            truncated=score.truncated,
            cached=ranked.cached,
        ),
    )

    if isinstance(document, Item):
        result.id = document.id
        result.metadata = document.metadata
        if query.return_documents:
            result.document = ReturnedDocument(text="".join(document.texts()))
    return result


def _documents(value: Any, rank_fields: list[str], limits: Limits) -> list[Item | RerankError]:
    return [
        _document(document, rank_fields, index)
        for index, document in enumerate(document_list(value, limits))
    ]


def _document(value: Any, rank_fields: list[str], index: int) -> Item | RerankError:
    at = ("documents", index)
    if not rank_fields:
        return item_or_error(value, at)

    try:
        check_field_counts(value, at, _MAX_RANKED_FIELDS)
        return item_or_error(with_text(value, rank_fields, at), at)
    except BadRequest as error:
        return error.with_traceback(None)


NATIVE = Dialect(
    name="native",
    matches=any_request,
    fields=READ,
    read=read,
    write=write,
    write_error=flat_body,
)
