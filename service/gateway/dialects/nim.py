"""The dialect of NVIDIA's NIM: `query: {text}` and `passages` in the request, logits in the answer.

It reads what the service's own dialect reads, under NIM's names, and refuses unknown fields as NIM
does. The module depends on no HTTP. Invariant: a ranking has no keys beside NIM's own, because some
parsers refuse others.

Source: NVIDIA's reference of the reranking NIM 2.3; langchain-nvidia-ai-endpoints 1.5, LiteLLM
1.110 and Elasticsearch's `nvidia` service as clients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from service.api import DocumentError, Options, Usage
from service.error_body import flat_body
from service.errors import MAX_PROBLEMS, BadRequest, InvalidRequest, Loc, Problem, RerankError
from service.gateway.dialects import native
from service.gateway.dialects.answers import document_errors, results, usage
from service.gateway.dialects.dialect import Dialect, Example, OnError, RequestMarks, any_request
from service.gateway.dialects.fields.locations import moved
from service.gateway.dialects.fields.messages import cut
from service.gateway.dialects.fields.names import IGNORED, READ
from service.gateway.dialects.fields.validation import item_or_error
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.items import Item
from service.limits import Limits

_NAMES = {"passages": "documents"}
_KNOWN = READ | IGNORED | _NAMES.keys()
_PASSAGE = ("text", "image")


class Passage(BaseModel):
    """A text, an image (a data URL or base64), or both."""

    text: str | None = None
    image: str | None = None


class NimRequest(Options):
    """A request of NIM's clients, with the service's own fields where a client sends them."""

    query: Passage
    passages: list[Passage] = Field(min_length=1)


@dataclass(slots=True, kw_only=True)
class Ranking:
    """One ranked passage."""

    index: int
    logit: float


class NimAnswer(BaseModel):
    """Every passage, or the best `top_k`, in descending order of logit."""

    rankings: list[Ranking]
    usage: Usage
    errors: list[DocumentError] | None = Field(
        None, description="Passages without a logit, where `on_error` is `skip`."
    )


def _has_passages(marks: RequestMarks) -> bool:
    return "passages" in marks.fields


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    unknown = [name for name in body if name not in _KNOWN]
    if unknown:
        message = "This is not a known field: model, query, passages and truncate are."
        problems = [Problem((cut(name),), message) for name in unknown[:MAX_PROBLEMS]]
        raise InvalidRequest(problems=problems, unlisted=len(unknown) - len(problems))

    return native.read(body, limits, on_error, names=_NAMES, item=_passage)


def _passage(value: Any, at: Loc) -> Item | BadRequest:
    """A passage from its JSON value: an object with a text, an image or both, or a string."""
    if isinstance(value, dict):
        for name in value:
            if name not in _PASSAGE:
                message = "This is not a known field: a passage has text and image."
                return InvalidRequest(message).at((*at, cut(name)))
    return item_or_error(value, at)


def _write(query: RerankQuery, result: RerankResult, request_id: str) -> NimAnswer:
    rankings = [Ranking(index=each.index, logit=each.logit) for each in results(query, result)]
    return NimAnswer(rankings=rankings, usage=usage(result), errors=document_errors(result) or None)


def _write_error(error: RerankError, request_id: str) -> dict[str, Any]:
    """NVIDIA's problem document beside the service's own body: its clients print the title, the
    detail and the id of the request."""
    problem = {
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "requestId": request_id,
    }
    return problem | flat_body(error, request_id)


NIM = Dialect(
    name="nim",
    title="NVIDIA NIM",
    matches=any_request,
    fields=READ | _NAMES.keys(),
    read=_read,
    write=_write,
    request=NimRequest,
    answer=NimAnswer,
    examples=(
        Example(
            "NVIDIA's client: passages, the answer has logits",
            {
                "model": "default/not-specified",
                "query": {"text": "a red circle"},
                "passages": [
                    {"text": "a blue square"},
                    {"text": "a red circle"},
                    {"text": "a list of numbers"},
                ],
                "truncate": "END",
            },
        ),
        Example(
            "NVIDIA's client: images",
            {
                "model": "default/not-specified",
                "query": {"text": "a red circle"},
                "passages": [
                    {"text": "", "image": BLUE_SQUARE},
                    {"text": "a caption", "image": RED_CIRCLE},
                    {"text": "a list of numbers"},
                ],
            },
        ),
    ),
    write_error=_write_error,
    relocate=moved({"documents": ("passages",)}),
    documents="passages",
)
NIM_MARKED = replace(NIM, matches=_has_passages)
"""The same dialect on paths where `passages` tell it from others."""
