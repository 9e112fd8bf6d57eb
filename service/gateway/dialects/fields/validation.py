"""Checks that every dialect makes of a request: its items, the number of its documents, its
instruction.

The module depends on the public types and limits, on no dialect. Invariant: a value is refused with
a `BadRequest` that has its location, and an object with too many fields is refused before pydantic
looks into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import BadRequest, InvalidRequest, Loc
from service.gateway.dialects.fields.messages import REQUIRED, bad_request
from service.gateway.media.data_urls import holds_picture
from service.items import Item
from service.limits import Limits

Options = TypeVar("Options", bound=BaseModel)

MAX_OBJECT_FIELDS = 16
"""Fields of an item, and of each object in its content. Pydantic reports each unknown field by
itself, and such an error is many times larger than the field."""


def vendor_options(kind: type[Options], body: dict[str, Any]) -> Options:
    """A vendor's own options in a request's body, where null stands for an absent field.

    Raises a `BadRequest` for a value that is not valid.
    """
    sent = {name: value for name, value in body.items() if value is not None}
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        raise bad_request(error) from None


def item_or_error(value: Any, at: Loc) -> Item | BadRequest:
    """An item from its JSON value, or the error that it is refused with.

    The error is without a traceback, whose frames would keep the value alive.
    """
    try:
        if isinstance(value, str) and value:
            return Item(text=value)  # there is nothing to validate
        check_field_counts(value, at, MAX_OBJECT_FIELDS)
        return Item.validated(value)
    except ValidationError as error:
        return bad_request(error, at)
    except BadRequest as error:
        return error.with_traceback(None)


def string_or_error(value: Any, at: Loc) -> Item | BadRequest:
    """An item from a string, or the error that any other JSON value is refused with."""
    try:
        check_string(value, at)
    except InvalidRequest as error:
        return error.with_traceback(None)
    return item_or_error(value, at)


def check_string(value: Any, at: Loc) -> None:
    """Raise `InvalidRequest` for a value that is neither a string nor null."""
    if not isinstance(value, str | None):
        raise InvalidRequest("This must be a string.").at(at)


def document_list(value: Any, limits: Limits, at: Loc = ("documents",)) -> list[Any]:
    """The JSON values of a request's documents, of which one may be sent without a list.

    Raises `InvalidRequest` where there are none, or more than the limit.
    """
    if value is None:
        raise InvalidRequest(REQUIRED).at(at)

    documents = value if isinstance(value, list) else [value]
    if not 1 <= len(documents) <= limits.max_documents:
        raise InvalidRequest(f"This must hold 1 to {limits.max_documents} documents.").at(at)
    return documents


def check_instruction(instruction: str | None, limits: Limits, at: Loc = ("instruction",)) -> None:
    """Raise `InvalidRequest` for an instruction that is too long or has an image in it."""
    if instruction is None:
        return

    if len(instruction) > limits.max_text_chars:
        message = f"This must have at most {limits.max_text_chars} characters."
        raise InvalidRequest(message).at(at)
    if holds_picture(instruction):
        raise InvalidRequest("This holds a picture as a data URL.").at(at)


def check_field_counts(item: Any, at: Loc, most: int) -> None:
    """Raise `InvalidRequest` for an item with more than `most` fields in it or in an object of its
    content."""
    for loc, value in _objects(item, at):
        if len(value) > most:
            raise InvalidRequest(f"This must have at most {most} fields.").at(loc)


def _objects(item: Any, at: Loc) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """The objects of an item with their locations: the item, its parts, and their `image_url`."""
    content = item
    if isinstance(item, dict):
        yield at, item
        content = item.get("content")

    if not isinstance(content, list):
        return
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            continue
        yield (*at, "content", index), part
        url = part.get("image_url")
        if isinstance(url, dict):
            yield (*at, "content", index, "image_url"), url
