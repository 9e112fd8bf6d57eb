"""TEI (text-embeddings-inference): `texts` in the request, and an answer that is a bare list.

It reads what the service's own dialect reads, under TEI's names, and texts alone. The module
depends on no HTTP. Invariant: a result has no keys beside TEI's own, because some parsers refuse
others.

Source: TEI's router, `http/types.rs` and `http/server.rs` of 1.9.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from service.api import Options
from service.error_body import flat_body
from service.errors import (
    BadRequest,
    InvalidRequest,
    NoWorker,
    Overloaded,
    RateLimited,
    RerankError,
)
from service.gateway.dialects import native
from service.gateway.dialects.answers import results
from service.gateway.dialects.dialect import Dialect, Example, OnError, RequestMarks, any_request
from service.gateway.dialects.fields.locations import moved
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.fields.validation import (
    check_string,
    string_or_error,
    vendor_options,
)
from service.gateway.domain import RerankQuery, RerankResult
from service.limits import Limits

_NAMES = {"texts": "documents", "return_text": "return_documents"}


def _capitalized(value: Any) -> Any:
    return value.capitalize() if isinstance(value, str) else value


class _TeiOptions(BaseModel):
    raw_scores: bool = Field(False, description="Scores are logits instead of probabilities.")
    truncation_direction: Annotated[Literal["Right", "Left"], BeforeValidator(_capitalized)] = (
        Field(
            "Right", description="`Left` is refused unless `truncate` is false: ends are cut here."
        )
    )


class TeiRequest(Options, _TeiOptions):
    """A request of TEI's clients, with the service's own fields where a client sends them."""

    query: str
    texts: list[str] = Field(min_length=1)
    return_text: bool = Field(False, description="Return the text of each result.")


class HuggingFaceRequest(Options, _TeiOptions):
    """As `TeiRequest`, under the service's own names."""

    query: str
    documents: list[str] = Field(min_length=1)
    return_documents: bool = Field(False, description="Return the text of each result.")


class TeiResult(BaseModel):
    """One ranked text."""

    index: int
    text: str | None = None
    score: float = Field(description="`relevance_score`; with `raw_scores`, `logit`.")


class TeiFailure(BaseModel):
    """A text without a score, where the request sets `on_error` to `skip`."""

    index: int
    error: str
    error_type: str
    code: str


def _matches(marks: RequestMarks) -> bool:
    return "texts" in marks.fields


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    """The query of a request.

    The operator's default of `on_error` does not apply: TEI's clients expect a score for each text.
    """
    check_string(body.get("query"), ("query",))
    options = vendor_options(_TeiOptions, body)
    query = native.read(body, limits, "fail", names=_NAMES, item=string_or_error, beside=_BESIDE)
    if query.truncate and options.truncation_direction == "Left":
        message = "This must be 'Right', or truncate false: this service cuts the ends of texts."
        raise InvalidRequest(message).at(("truncation_direction",))
    return replace(query, raw_scores=options.raw_scores)


def _write(
    query: RerankQuery, result: RerankResult, request_id: str
) -> list[TeiResult | TeiFailure]:
    found: list[TeiResult | TeiFailure] = []
    for each in results(query, result):
        score = each.logit if query.raw_scores else each.relevance_score
        text = each.document.text if each.document else None
        found.append(TeiResult(index=each.index, text=text, score=score))

    for index, error in result.errors:
        found.append(TeiFailure(index=index, **_tei_error(error), code=error.code))
    return found


def _write_error(error: RerankError, request_id: str) -> dict[str, Any]:
    return _tei_error(error) | flat_body(error, request_id)


def _tei_error(error: RerankError) -> dict[str, str]:
    """An error's sentence and its type, as TEI names them."""
    kind = "Backend"
    if isinstance(error, BadRequest):
        kind = "Validation"
    elif isinstance(error, Overloaded | RateLimited):
        kind = "Overloaded"
    elif isinstance(error, NoWorker):
        kind = "Unhealthy"
    return {"error": error.sentence(), "error_type": kind}


_BESIDE = frozenset(_TeiOptions.model_fields)
TEI = Dialect(
    name="tei",
    title="TEI",
    matches=_matches,
    fields=READ | _NAMES.keys() | _BESIDE,
    read=_read,
    write=_write,
    request=TeiRequest,
    answer=list[TeiResult | TeiFailure],
    examples=(
        Example(
            "TEI's client: texts, the answer a bare list",
            {
                "query": "a red circle",
                "texts": ["a blue square", "a red circle", "a list of numbers"],
                "return_text": True,
            },
        ),
    ),
    write_error=_write_error,
    relocate=moved({"documents": ("texts",), "query": ("query",)}, strings=True),
    documents="texts",
)
HUGGING_FACE = replace(
    TEI,
    name="hugging-face",
    title="Hugging Face",
    matches=any_request,
    fields=READ | _BESIDE,
    request=HuggingFaceRequest,
    examples=(
        Example(
            "Elasticsearch's service hugging_face: documents, the answer a bare list",
            {
                "query": "a red circle",
                "documents": ["a blue square", "a red circle", "a list of numbers"],
                "return_documents": True,
            },
        ),
    ),
    relocate=moved({"documents": ("documents",), "query": ("query",)}, strings=True),
    documents="documents",
)
"""TEI's answer to `documents`, for clients of an endpoint at Hugging Face."""
