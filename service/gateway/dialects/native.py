"""The service's own dialect (API, section 1), which Cohere, Jina, Infinity, Xinference and vLLM
clients speak too.

Two pure functions, from the body to an `Ask` and from an `Outcome` to the answer. Knows no HTTP.
Invariant: messages are this room's own; of what a user sent, only field names, ids and metadata are
repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationError

from service.api import (
    AnswerMeta,
    DocumentError,
    Item,
    Limits,
    RerankAnswer,
    RerankOptions,
    Result,
    ResultMeta,
    ReturnedDocument,
    Usage,
)
from service.errors import BadRequest, InvalidRequest, Loc, RerankError
from service.gateway.dialects.field_names import (
    expect_no_steering,
    unknown_fields,
    with_instruction,
)
from service.gateway.dialects.findings import REQUIRED, refusal
from service.gateway.dialects.rank_fields import with_text
from service.gateway.domain import RerankQuery, RerankResult, ScoredDocument
from service.gateway.media.data_urls import holds_picture

NAME = "native"
OnError = Literal["fail", "skip"]

_DOCUMENTS_PER_SEARCH_UNIT = 100
_MAX_OBJECT_FIELDS = 16
"""Of an item, and of each object in its content; each unknown one would be a finding of pydantic's.
"""
_MAX_RANKED_FIELDS = 1_000
"""Of a document with `rank_fields`, which may have fields of its own."""


def read(body: dict[str, Any], limits: Limits, on_error: OnError = "fail") -> RerankQuery:
    """A JSON object as an `Ask`; raises a `BadRequest` that names the places.

    Bad documents are kept as their errors. `on_error` is what holds where the request does not say.
    """
    expect_no_steering(body)
    given = {name: value for name, value in body.items() if value is not None}
    given, warnings = with_instruction(given)
    documents = given.pop("documents", None)
    _expect_few_fields(given.get("query"), ("query",), _MAX_OBJECT_FIELDS)
    try:
        options = RerankOptions.model_validate(given)
    except ValidationError as error:
        raise refusal(error) from None

    _expect_instruction(options.instruction, limits)
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
        warnings=(*warnings, *unknown_fields(body)),
    )


def write(ask: RerankQuery, outcome: RerankResult, identity: str) -> RerankAnswer:
    """An outcome as the answer."""
    kept = [
        each
        for each in outcome.ranked
        if ask.min_score is None or sigmoid(each.score.logit) >= ask.min_score
    ]
    tokens = sum(each.score.prompt_tokens for each in outcome.ranked)
    return RerankAnswer(
        id=identity,
        model=outcome.model.model,
        results=[_result(ask, each) for each in kept[: ask.top_n]],
        errors=[
            DocumentError(index=index, code=error.code, message=error.sentence())
            for index, error in outcome.errors
        ],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        meta=AnswerMeta(
            model_digest=outcome.model.digest,
            cached_pairs=sum(each.cached for each in outcome.ranked),
            tokens={"input_tokens": tokens},
            billed_units={
                "search_units": math.ceil(len(ask.documents) / _DOCUMENTS_PER_SEARCH_UNIT)
            },
            warnings=list(ask.warnings) or None,
        ),
    )


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def _result(ask: RerankQuery, ranked: ScoredDocument) -> Result:
    document = ask.documents[ranked.index]
    score = ranked.score
    return Result(
        index=ranked.index,
        relevance_score=sigmoid(score.logit),
        logit=score.logit,
        id=document.id if isinstance(document, Item) else None,
        metadata=document.metadata if isinstance(document, Item) else None,
        document=ReturnedDocument(text=_text(document))
        if ask.return_documents and isinstance(document, Item)
        else None,
        meta=ResultMeta(
            prompt_tokens=score.prompt_tokens,
            image_tokens=score.image_tokens,
            truncated=score.truncated,
            cached=ranked.cached,
        ),
    )


def _text(item: Item) -> str:
    return "".join(item.texts())


def _expect_instruction(instruction: str | None, limits: Limits) -> None:
    if instruction is None:
        return
    if len(instruction) > limits.max_text_chars:
        message = f"This must have at most {limits.max_text_chars} characters."
        raise InvalidRequest(message).at(("instruction",))
    if holds_picture(instruction):
        raise InvalidRequest("This holds a picture as a data URL.").at(("instruction",))


def _documents(given: Any, rank_fields: list[str], limits: Limits) -> list[Item | RerankError]:
    if given is None:
        raise InvalidRequest(REQUIRED).at(("documents",))

    documents = given if isinstance(given, list) else [given]
    if not 1 <= len(documents) <= limits.max_documents:
        message = f"This must hold 1 to {limits.max_documents} documents."
        raise InvalidRequest(message).at(("documents",))
    return [_document(document, rank_fields, index) for index, document in enumerate(documents)]


def _document(given: Any, rank_fields: list[str], index: int) -> Item | RerankError:
    at = ("documents", index)
    most = _MAX_RANKED_FIELDS if rank_fields else _MAX_OBJECT_FIELDS
    try:
        _expect_few_fields(given, at, most)
        return Item.model_validate(with_text(given, rank_fields, at))
    except ValidationError as error:
        return refusal(error, at)
    except BadRequest as error:
        return error


def _expect_few_fields(item: Any, at: Loc, most: int) -> None:
    """Raise `InvalidRequest` where an item, or an object in its content, has more fields than
    `most`."""
    for loc, value in _objects(item, at):
        if len(value) > most:
            raise InvalidRequest(f"This must have at most {most} fields.").at(loc)


def _objects(item: Any, at: Loc) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """The objects of an item with their places: itself, its parts, their `image_url`."""
    if not isinstance(item, dict):
        return
    yield at, item

    content = item.get("content")
    for place, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict):
            yield (*at, "content", place), part
            url = part.get("image_url")
            if isinstance(url, dict):
                yield (*at, "content", place, "image_url"), url
