"""The dialect of SGLang, whose answer is a bare list. Its requests look like the service's own, and
a path of its own tells it from that.

It reads what the service's own dialect reads. The module depends on no HTTP. Invariant: results are
best first, as in SGLang.

Source: SGLang 0.5, `entrypoints/openai/serving_rerank.py` and `protocol.py`.
"""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from service.api import RerankRequest
from service.error_body import flat_body
from service.errors import RerankError, path_of
from service.gateway.dialects import native
from service.gateway.dialects.answers import results
from service.gateway.dialects.dialect import Dialect, Example, OnError, any_request
from service.gateway.dialects.fields.names import READ
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.limits import Limits

_NAMES = {"instruct": "instruction"}


class SGLangRequest(RerankRequest):
    """A request of SGLang's clients, with the service's own fields where a client sends them."""

    instruct: str | None = Field(None, description="The same as `instruction`.")
    return_documents: bool = Field(True, description="Return the text of each result's document.")


class SGLangResult(BaseModel):
    """One ranked document."""

    score: float
    document: str | None = None
    index: int
    meta_info: dict[str, Any]


class SGLangFailure(BaseModel):
    """A document without a score, where the request sets `on_error` to `skip`."""

    index: int
    message: str
    code: str


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    """The query of a request.

    The operator's default of `on_error` does not apply: SGLang's clients expect a score for each
    document.
    """
    return native.read({"return_documents": True} | body, limits, "fail", names=_NAMES)


def _write(
    query: RerankQuery, result: RerankResult, request_id: str
) -> list[SGLangResult | SGLangFailure]:
    found: list[SGLangResult | SGLangFailure] = []
    for each in results(query, result):
        counts = {name: count for name, count in asdict(each.meta).items() if count is not None}
        if each.probability is not None:
            counts["probability"] = each.probability
        found.append(
            SGLangResult(
                score=each.relevance_score,
                document=each.document.text if each.document else None,
                index=each.index,
                meta_info={
                    "id": request_id,
                    "logit": each.logit,
                    **counts,
                },
            )
        )

    for index, error in result.errors:
        found.append(SGLangFailure(index=index, message=error.sentence(), code=error.code))
    return found


def _write_error(error: RerankError, request_id: str) -> dict[str, Any]:
    place = error.problems[0].loc if error.problems else ()
    described = {
        "object": "error",
        "type": HTTPStatus(error.status).phrase.replace(" ", ""),
        "param": path_of(place) or None,
    }
    return described | flat_body(error, request_id)


SGLANG = Dialect(
    name="sglang",
    title="SGLang",
    matches=any_request,
    fields=READ,
    read=_read,
    write=_write,
    request=SGLangRequest,
    answer=list[SGLangResult | SGLangFailure],
    examples=(
        Example(
            "SGLang's client: content parts as lists, the answer a bare list",
            {
                "query": [{"type": "text", "text": "a red circle"}],
                "documents": [
                    [{"type": "image_url", "image_url": {"url": BLUE_SQUARE}}],
                    [{"type": "image_url", "image_url": {"url": RED_CIRCLE}}],
                    "a list of numbers",
                ],
            },
        ),
    ),
    write_error=_write_error,
)
