"""Pydantic's errors as this service's, one sentence each.

The module depends on pydantic's error types and their context. Invariant: of a request, only field
names are repeated, cut to `MAX_NAME` characters; no text of pydantic's leaves.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.errors import BY_CODE, MAX_PROBLEMS, BadRequest, InvalidRequest, Loc, Problem
from service.feedback_api import MAX_EVENTS
from service.fields import MAX_ID_CHARS, MAX_METADATA_BYTES

MAX_NAME = 64
"""Characters of a field's name that a message repeats."""

REQUIRED = "This is required."
_ITEM = "This must be a string or an object."
_OBJECTS = {"content", "events", "batch"}
"""Lists whose elements are objects."""
_MESSAGES = {
    "missing": REQUIRED,
    "extra_forbidden": "This is not a known field.",
    "string_type": "This must be a string.",
    "string_too_long": "This must have at most {max_length} characters.",
    "string_too_short": "This must have at least {min_length} characters.",
    "bool_type": "This must be true or false.",
    "bool_parsing": "This must be true or false.",
    "int_type": "This must be a whole number.",
    "int_parsing": "This must be a whole number.",
    "int_parsing_size": "This must be a whole number of fewer digits.",
    "int_from_float": "This must be a whole number.",
    "float_type": "This must be a number.",
    "float_parsing": "This must be a number.",
    "finite_number": "This must be a finite number.",
    "greater_than_equal": "This must be at least {ge}.",
    "less_than_equal": "This must be at most {le}.",
    "list_type": "This must be a list.",
    "too_long": "This must hold at most {max_length} elements.",
    "too_short": "This must hold at least {min_length} elements.",
    "dict_type": "This must be an object.",
    "literal_error": "This must be {expected}.",
    "identifier": (
        f"This must be a string of at most {MAX_ID_CHARS} characters or a 64-bit integer."
    ),
    "metadata": f"This must be a JSON object of at most {MAX_METADATA_BYTES} bytes.",
    "part": "This must hold what its type names, and nothing else.",
    "content": "This must have either content, or text and image.",
    "format": "This must have the format text for a text, and base64 or url for an image.",
    "event": "This must have clicked: true or a grade, and only one of them.",
    "feedback": "This must have events, or say what was shown.",
    "shown": (
        f"This must be a number of results from 1 on, or a list of up to {MAX_EVENTS} indices."
    ),
    "empty_item": "An item needs a text or an image.",
}
"""Messages by pydantic's error type; the names in braces are from an error's context."""


def bad_request(error: ValidationError, at: Loc = ()) -> BadRequest:
    """The errors that pydantic found at a location of the request, as one of the first one's
    class."""
    details = error.errors(include_url=False, include_input=False)
    kind = BY_CODE.get(details[0]["type"], InvalidRequest)
    if not issubclass(kind, BadRequest):
        kind = InvalidRequest

    problems = [_problem(each, at) for each in details[:MAX_PROBLEMS]]
    return kind(problems=problems, unlisted=len(details) - len(problems))


def cut(step: str | int) -> str | int:
    """A step of a location; of a field's name, the characters that a message repeats."""
    return step if isinstance(step, int) else step[:MAX_NAME]


def _problem(details: ErrorDetails, at: Loc) -> Problem:
    inner = details["loc"]
    loc = (*at, *(cut(step) for step in inner))
    kind = details["type"]
    if kind in ("model_type", "model_attributes_type"):
        # an item may also be a string; a part of its content, and what is no item, may not
        is_object = _OBJECTS.intersection(inner) or not loc
        return Problem(loc, "This must be an object." if is_object else _ITEM)

    if kind == "extra_forbidden" and len(inner) == 1 and at[:1] == ("documents",):
        message = "This is not a known field: rank_fields reads it as text, metadata carries it."
        return Problem(loc, message)

    message = _MESSAGES.get(kind, "This is not valid.")
    return Problem(loc, message.format_map(details.get("ctx", {})))
