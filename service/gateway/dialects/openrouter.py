"""OpenRouter's dialect: documents are strings or `{text?, image?}`, and every result has its text.

It reads what the service's own dialect reads. The module depends on no HTTP. Invariant: an error's
body has the `error` object that OpenRouter's clients parse, beside the flat body.

Source: OpenRouter's Python client 1.3 and its reference of `POST /api/v1/rerank`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from service.api import AnswerMeta, DocumentError, RerankRequest, Result
from service.error_body import flat_body
from service.errors import RerankError
from service.gateway.dialects import native
from service.gateway.dialects.answers import (
    answer_meta,
    document_errors,
    results,
    search_units,
    usage,
)
from service.gateway.dialects.dialect import Dialect, Example, OnError, any_request
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.pictures import RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.limits import Limits

_IGNORED = ("provider", "session_id", "trace", "models")


class OpenRouterUsage(BaseModel):
    """Numbers of tokens, and Cohere's units of billing."""

    prompt_tokens: int
    total_tokens: int
    search_units: int
    completion_tokens: int | None = None


class OpenRouterAnswer(BaseModel):
    """The answer in OpenRouter's shape, with the service's own `errors` and `meta`."""

    id: str
    model: str
    provider: str
    results: list[Result]
    errors: list[DocumentError]
    usage: OpenRouterUsage
    meta: AnswerMeta


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    query = native.read(body, limits, on_error, beside=_IGNORED)
    return replace(query, return_documents=True)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> OpenRouterAnswer:
    return OpenRouterAnswer(
        id=request_id,
        model=result.model.model,
        provider="gmr-rerank",
        results=results(query, result),
        errors=document_errors(result),
        usage=OpenRouterUsage(**vars(usage(result)), search_units=search_units(query)),
        meta=answer_meta(query, result),
    )


def _write_error(error: RerankError, request_id: str) -> dict[str, Any]:
    body = flat_body(error, request_id)
    return {"error": {"code": error.status, "message": body["message"]}} | body


OPENROUTER = Dialect(
    name="openrouter",
    title="OpenRouter",
    matches=any_request,
    fields=READ,
    read=_read,
    write=_write,
    request=RerankRequest,
    answer=OpenRouterAnswer,
    examples=(
        Example(
            "OpenRouter's client: documents of text, of an image, or of both",
            {
                "model": "default/not-specified",
                "query": "a red circle",
                "documents": ["a blue square", {"text": "a red circle"}, {"image": RED_CIRCLE}],
                "top_n": 2,
            },
        ),
    ),
    write_error=_write_error,
)
