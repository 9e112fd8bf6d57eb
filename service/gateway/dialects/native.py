"""The service's own dialect (API, section 1), which Cohere, Jina, Infinity, Xinference and vLLM clients speak too.

Two pure functions, from the body to an `Ask` and from an `Outcome` to the answer. Knows no HTTP. Invariant: messages are this
file's own; of what a user sent, only field names (in places) and ids are repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.contracts import (
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
from service.errors import BY_CODE, BadRequest, InvalidRequest, Loc, Problem, RerankError
from service.gateway.rerank import Ask, Outcome, Ranked

NAME = "native"
_STEERING = ("cache_salt", "mm_processor_kwargs", "chat_template", "chat_template_kwargs", "priority", "uuid")
"""Fields that would let a client steer the engine; refused rather than ignored."""

_DOCUMENTS_PER_SEARCH_UNIT = 100
_MAX_NAME = 64

# What is wrong with a value, in our words, by pydantic's kind of error.
_MESSAGES = {
    "missing": "This field is required.",
    "extra_forbidden": "This field is not known.",
    "string_type": "This must be a string.",
    "string_too_long": "This string is too long.",
    "bool_type": "This must be true or false.",
    "bool_parsing": "This must be true or false.",
    "int_type": "This must be an integer.",
    "int_parsing": "This must be an integer.",
    "int_from_float": "This must be an integer.",
    "float_type": "This must be a number.",
    "float_parsing": "This must be a number.",
    "finite_number": "This must be a finite number.",
    "list_type": "This must be a list.",
    "too_long": "This list is too long.",
    "model_type": "This must be a string or an object.",
    "model_attributes_type": "This must be a string or an object.",
    "part": "A part holds what its type names, and only that.",
    "content": "Use either content, or text and image.",
    "empty_item": "An item needs a text or an image.",
}
_BOUNDS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


def read(body: dict[str, Any], limits: Limits) -> Ask:
    """A JSON object as an `Ask`; raises a `BadRequest` that names the places. Bad documents are kept as their errors."""
    steering = [name for name in _STEERING if body.get(name) is not None]
    if steering:
        raise InvalidRequest(problems=[Problem((name,), "This field is not accepted here.") for name in steering])
    given = {name: value for name, value in body.items() if value is not None}
    documents = _documents(given.pop("documents", None), limits)
    try:
        options = RerankOptions.model_validate(given)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False), ()) from None
    if options.instruction and len(options.instruction) > limits.max_text_chars:
        raise InvalidRequest(f"An instruction may have {limits.max_text_chars} characters.").at(("instruction",))
    return Ask(
        query=options.query,
        documents=documents,
        model=options.model,
        instruction=options.instruction,
        top_n=options.top_n,
        min_score=options.min_score,
        return_documents=options.return_documents,
        truncate=options.truncate == "end",
        skip_errors=options.on_error == "skip",
        timeout_ms=options.timeout_ms,
        cache=options.cache,
    )


def write(ask: Ask, outcome: Outcome, identity: str) -> RerankAnswer:
    """An outcome as the answer."""
    kept = [each for each in outcome.ranked if ask.min_score is None or sigmoid(each.score.logit) >= ask.min_score]
    tokens = sum(each.score.prompt_tokens for each in outcome.ranked)
    return RerankAnswer(
        id=identity,
        model=outcome.model.model,
        results=[_result(ask, each) for each in kept[: ask.top_n]],
        errors=[DocumentError(index=index, code=error.code, message=error.message) for index, error in outcome.errors],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        meta=AnswerMeta(
            model_digest=outcome.model.digest,
            cached_pairs=sum(each.cached for each in outcome.ranked),
            tokens={"input_tokens": tokens},
            billed_units={"search_units": math.ceil(len(ask.documents) / _DOCUMENTS_PER_SEARCH_UNIT)},
        ),
    )


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def _result(ask: Ask, ranked: Ranked) -> Result:
    document = ask.documents[ranked.index]
    score = ranked.score
    return Result(
        index=ranked.index,
        relevance_score=sigmoid(score.logit),
        logit=score.logit,
        id=document.id if isinstance(document, Item) else None,
        document=ReturnedDocument(text=_text(document)) if ask.return_documents and isinstance(document, Item) else None,
        meta=ResultMeta(
            prompt_tokens=score.prompt_tokens,
            image_tokens=score.image_tokens,
            truncated=score.truncated,
            cached=ranked.cached,
        ),
    )


def _text(item: Item) -> str:
    return "".join(text for text, _ in item.parts() if text)


def _documents(given: Any, limits: Limits) -> list[Item | RerankError]:
    if given is None:
        raise InvalidRequest(problems=[Problem(("documents",), _MESSAGES["missing"])])
    documents = given if isinstance(given, list) else [given]
    if not 1 <= len(documents) <= limits.max_documents:
        raise InvalidRequest(f"A request takes 1 to {limits.max_documents} documents.").at(("documents",))
    return [_document(document, index) for index, document in enumerate(documents)]


def _document(given: Any, index: int) -> Item | RerankError:
    try:
        return Item.model_validate(given)
    except ValidationError as error:
        return _refusal(error.errors(include_url=False, include_input=False), ("documents", index))


def _refusal(errors: Iterable[ErrorDetails], at: Loc) -> BadRequest:
    """Pydantic's findings as one of our errors: that of the first finding's kind."""
    problems = []
    kinds = []
    for error in errors:
        problems.append(Problem((*at, *(_named(step) for step in error["loc"])), _message(error)))
        kinds.append(BY_CODE.get(error["type"], InvalidRequest))
    kind = kinds[0] if issubclass(kinds[0], BadRequest) else InvalidRequest
    return kind(problems[0].message if at else None, problems=problems)


def _message(error: ErrorDetails) -> str:
    if error["type"] in _BOUNDS:
        name, words = _BOUNDS[error["type"]]
        return f"This must be {words} {error['ctx'][name]}."
    if error["type"] == "literal_error":
        return f"This must be one of {error['ctx']['expected']}."
    return _MESSAGES.get(error["type"], "This is not valid.")


def _named(step: str | int) -> str | int:
    return step if isinstance(step, int) else step[:_MAX_NAME]
