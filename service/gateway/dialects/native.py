"""The service's own dialect, which clients of Cohere, Jina, Infinity, Xinference and vLLM use too.

It depends on no HTTP. Invariant: every message is written in this package, and of a request, only
field names, ids and metadata are repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from service.api import RerankAnswer, RerankAnswerWithData, RerankOptions, RerankRequest
from service.errors import BadRequest, Loc, RerankError
from service.gateway.dialects.answers import answer_meta, document_errors, results, usage
from service.gateway.dialects.dialect import Dialect, Example, OnError, any_request
from service.gateway.dialects.fields.image_urls import image_url_warnings
from service.gateway.dialects.fields.kwargs import with_kwargs
from service.gateway.dialects.fields.locations import moved, relocated
from service.gateway.dialects.fields.messages import bad_request
from service.gateway.dialects.fields.names import (
    READ,
    SYNONYMS,
    refuse_steering_fields,
    unknown_field_warnings,
    with_own_names,
)
from service.gateway.dialects.fields.rank_fields import with_text
from service.gateway.dialects.fields.validation import (
    MAX_OBJECT_FIELDS,
    check_field_counts,
    check_instruction,
    document_list,
    item_or_error,
)
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.domain import RerankQuery, RerankResult
from service.items import Item
from service.limits import Limits

ReadItem = Callable[[Any, Loc], Item | BadRequest]
"""Makes an item of its JSON value and its location, or the error that it is refused with."""

_MAX_RANKED_FIELDS = 1_000
"""Fields of a document where `rank_fields` is sent, which allows fields of its own."""


def read(
    body: dict[str, Any],
    limits: Limits,
    on_error: OnError = "fail",
    *,
    names: Mapping[str, str] | None = None,
    item: ReadItem = item_or_error,
    beside: Collection[str] = (),
) -> RerankQuery:
    """The query in a request's JSON object; raises a `BadRequest` with the locations of what is
    wrong.

    A document that is not valid is kept as its error. `on_error` applies to a request that does not
    set it. Another dialect gives its `names` of the service's fields, a reader of its documents
    where they have a shape of their own, and the fields that it reads itself, `beside` these.
    """
    refuse_steering_fields(body)
    fields = {name: value for name, value in body.items() if value is not None}
    fields, spelled = with_own_names(fields, names or {})
    known = {*(names or ()), *beside}
    warnings = unknown_field_warnings([name for name in body if name not in known])
    fields, taken = with_own_names(fields, SYNONYMS)
    warnings += [f"{name} was taken as {own}." for own, name in taken.items()]
    fields, kwargs_warnings = with_kwargs(fields)
    documents = fields.pop("documents", None)

    check_field_counts(fields.get("query"), ("query",), MAX_OBJECT_FIELDS)
    sent_as = spelled | taken
    options = _options(fields, sent_as)
    check_instruction(options.instruction, limits, (sent_as.get("instruction", "instruction"),))

    items = _documents(documents, options.rank_fields or [], limits, item)
    warnings += [*kwargs_warnings, *image_url_warnings(options.query, items)]
    return RerankQuery(
        query=options.query,
        documents=items,
        model=options.model,
        instruction=options.instruction,
        top_n=options.top_n or None,
        min_score=options.min_score,
        min_probability=options.min_score_on == "probability",
        return_documents=options.return_documents,
        truncate=options.truncate == "end",
        skip_errors=(options.on_error or on_error) == "skip",
        timeout_ms=options.timeout_ms,
        cache=options.cache,
        warnings=tuple(warnings),
    )


def _options(fields: dict[str, Any], taken: Mapping[str, str]) -> RerankOptions:
    """The options of a request; `taken` has the vendor's name of each field that had another."""
    try:
        return RerankOptions.model_validate(fields)
    except ValidationError as error:
        places = {own: (name,) for own, name in taken.items()}
        raise relocated(bad_request(error), moved(places)) from None


def write(query: RerankQuery, result: RerankResult, request_id: str) -> RerankAnswer:
    """The answer to a query."""
    return RerankAnswer(
        id=request_id,
        model=result.model.model,
        results=results(query, result),
        errors=document_errors(result),
        usage=usage(result),
        meta=answer_meta(query, result),
    )


def write_with_data(query: RerankQuery, result: RerankResult, request_id: str) -> RerankAnswer:
    """The answer to a query, with its results as `data`, too."""
    answer = write(query, result, request_id)
    return RerankAnswerWithData(**vars(answer), data=answer.results)


def _documents(
    value: Any, rank_fields: list[str], limits: Limits, item: ReadItem
) -> list[Item | RerankError]:
    return [
        _document(document, rank_fields, index, item)
        for index, document in enumerate(document_list(value, limits))
    ]


def _document(value: Any, rank_fields: list[str], index: int, item: ReadItem) -> Item | RerankError:
    at = ("documents", index)
    if not rank_fields:
        return item(value, at)

    try:
        check_field_counts(value, at, _MAX_RANKED_FIELDS)
        return item(with_text(value, rank_fields, at), at)
    except BadRequest as error:
        return error.with_traceback(None)


EXAMPLES = (
    Example(
        "Texts (Cohere, Jina, Infinity, Xinference), the best two with their text",
        {
            "query": "a red circle",
            "documents": ["a blue square", "a red circle", "a list of numbers"],
            "top_n": 2,
            "return_documents": True,
        },
    ),
    Example(
        "Pictures and texts (Jina, OpenRouter), each alone or both in one document",
        {
            "query": "a red circle",
            "documents": [
                {"image": BLUE_SQUARE, "id": "square"},
                {"text": "drawn on white paper", "image": RED_CIRCLE, "id": "circle"},
                {"text": "a list of numbers", "id": 3, "metadata": {"page": 12}},
            ],
        },
    ),
    Example(
        "A picture as the query",
        {
            "query": {"image": RED_CIRCLE},
            "documents": ["a blue square", "a red circle", "a list of numbers"],
        },
    ),
    Example(
        "Content parts (vLLM): texts and pictures in their order",
        {
            "query": "a red circle",
            "documents": [
                {"content": [{"type": "image_url", "image_url": {"url": BLUE_SQUARE}}]},
                {
                    "content": [
                        {"type": "text", "text": "before"},
                        {"type": "image_url", "image_url": {"url": RED_CIRCLE}},
                        {"type": "text", "text": "and after"},
                    ]
                },
                "a list of numbers",
            ],
        },
    ),
    Example(
        "Documents with fields (Cohere v1's rank_fields)",
        {
            "query": "a red circle",
            "documents": [
                {"title": "Squares", "text": "a blue square", "author": "a"},
                {"title": "Circles", "text": "a red circle", "author": "b"},
            ],
            "rank_fields": ["title", "text"],
        },
    ),
    Example(
        "An instruction, a deadline, and a bad document that is listed instead of an error",
        {
            "query": "a red circle",
            "documents": ["a blue square", "", "a red circle"],
            "instruction": "Find a text that describes the same shape.",
            "on_error": "skip",
            "timeout_ms": 30_000,
        },
    ),
    Example(
        "Xinference's instruction, in the string kwargs",
        {
            "query": "a red circle",
            "documents": ["a blue square", "a red circle", "a list of numbers"],
            "kwargs": '{"instruction": "Find a shape."}',
        },
    ),
)
NATIVE = Dialect(
    name="native",
    title="Cohere, Jina, vLLM",
    matches=any_request,
    fields=READ,
    read=read,
    write=write,
    request=RerankRequest,
    answer=RerankAnswer,
    examples=EXAMPLES,
)
NATIVE_WITH_DATA = replace(NATIVE, write=write_with_data, answer=RerankAnswerWithData)
"""The same dialect where clients of Voyage may be, which may send nothing that marks them."""
