"""Infinity's dialect where its answer differs from the service's own: `document` is a string, and
`raw_scores` are logits.

Its requests look like the service's own, and a path of its own tells it from that. Clients that ask
for no documents need no such path. The module depends on no HTTP. Invariant: results are best
first, as in Infinity.

Source: Infinity's `fastapi_schemas/pymodels.py` of 0.0.77.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.api import AnswerMeta, DocumentError, RerankRequest, Usage
from service.gateway.dialects import native
from service.gateway.dialects.answers import (
    TextResult,
    answer_meta,
    document_errors,
    text_results,
    usage,
)
from service.gateway.dialects.dialect import Dialect, Example, OnError, any_request
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.fields.validation import vendor_options
from service.gateway.domain import RerankQuery, RerankResult
from service.limits import Limits


class _InfinityOptions(BaseModel):
    raw_scores: bool = Field(False, description="`relevance_score` is the logit.")


class InfinityRequest(RerankRequest, _InfinityOptions):
    """A request of Infinity's clients, with the service's own fields where a client sends them."""


class InfinityAnswer(BaseModel):
    """The answer in Infinity's shape, with the service's own `errors` and `meta`."""

    object: Literal["rerank"] = "rerank"
    id: str
    model: str
    created: int = Field(description="Seconds since 1970.")
    results: list[TextResult]
    usage: Usage
    errors: list[DocumentError]
    meta: AnswerMeta


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    options = vendor_options(_InfinityOptions, body)
    return replace(native.read(body, limits, on_error), raw_scores=options.raw_scores)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> InfinityAnswer:
    return InfinityAnswer(
        id=request_id,
        model=result.model.model,
        created=int(time.time()),
        results=text_results(query, result),
        usage=usage(result),
        errors=document_errors(result),
        meta=answer_meta(query, result),
    )


INFINITY = Dialect(
    name="infinity",
    title="Infinity",
    matches=any_request,
    fields=READ | {"raw_scores"},
    read=_read,
    write=_write,
    request=InfinityRequest,
    answer=InfinityAnswer,
    examples=(
        Example(
            "Infinity's client: documents as strings, in the answer too",
            {
                "query": "a red circle",
                "documents": ["a blue square", "a red circle", "a list of numbers"],
                "top_n": 2,
                "return_documents": True,
            },
        ),
    ),
)
