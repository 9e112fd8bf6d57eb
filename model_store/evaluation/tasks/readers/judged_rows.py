"""One line of `judgements.jsonl`: a query, and its documents in the order in which they were shown,
with grades or clicks.

Does not depend on files. Invariant: a row has a query and a document, none of its items is empty,
and paths of images are relative and lead to no folder above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.readers.images import MAX_PATH_CHARS, is_inside

MAX_DOCUMENTS = 1_000
MAX_TEXT_CHARS = 100_000
MAX_INSTRUCTION_CHARS = 10_000
MAX_ID_CHARS = 256
MAX_GRADE = 100
Kind = Literal["grade", "clicks"]
_ROW, _ITEM = ("id", "query", "documents", "instruction"), ("id", "text", "image")
_IGNORED = "metadata"
"""A field of rows and items that may hold anything."""
_SHOWN = 40

_decoder = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """A query or a document; `image` is the path of its image in the folder."""

    text: str | None
    image: str | None


@dataclass(frozen=True, slots=True)
class JudgedDocument:
    """A document that was shown; its grade is above 0 where it is relevant, or was clicked."""

    item: JudgedItem
    grade: int


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A query with its documents. `kind` is what the grades come from; None where the row has
    none. `id` is None where the row has none."""

    id: str | None
    query: JudgedItem
    documents: tuple[JudgedDocument, ...]
    instruction: str | None
    kind: Kind | None


def parse_judged_row(line: bytes, location: str) -> JudgedRow:
    """The row of a line; `location` is `file:line`. Raises `TaskUnusable`."""
    try:
        row = _decoder.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TaskUnusable(f"{location}: this is not one JSON object in UTF-8.") from None

    def refuse(reason: str) -> TaskUnusable:
        return TaskUnusable(f"{location}: {reason}.")

    _check_fields(row, _ROW, "the row", refuse)
    listed = row.get("documents")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_DOCUMENTS:
        raise refuse(f"documents is no list of 1 to {MAX_DOCUMENTS} documents")
    judged = [_document(value, f"documents[{index}]", refuse) for index, value in enumerate(listed)]
    kinds = {kind for _, kind in judged if kind is not None}
    if len(kinds) > 1:
        raise refuse("there are grades and clicks: a file has one of them")

    return JudgedRow(
        id=_id(row.get("id"), refuse),
        query=_item(row.get("query"), "query", _ITEM, refuse),
        documents=tuple(document for document, _ in judged),
        instruction=_text(row.get("instruction"), "instruction", MAX_INSTRUCTION_CHARS, refuse),
        kind=kinds.pop() if kinds else None,
    )


_Refuse = Callable[[str], TaskUnusable]


def _document(value: object, name: str, refuse: _Refuse) -> tuple[JudgedDocument, Kind | None]:
    item = _item(value, name, (*_ITEM, "grade", "clicks"), refuse)
    if not isinstance(value, dict):
        return JudgedDocument(item, 0), None

    grade, clicks = value.get("grade"), value.get("clicks")
    if grade is not None and clicks is not None:
        raise refuse(f"{name} has a grade and clicks: a file has one of them")
    if clicks is not None:
        if not isinstance(clicks, int) or clicks < 0:
            raise refuse(f"{name}.clicks is no number of clicks")
        return JudgedDocument(item, int(clicks > 0)), "clicks"
    if grade is None:
        return JudgedDocument(item, 0), None
    if not isinstance(grade, int) or isinstance(grade, bool) or abs(grade) > MAX_GRADE:
        raise refuse(f"{name}.grade is no whole number up to {MAX_GRADE}")
    return JudgedDocument(item, grade), "grade"


def _item(value: object, name: str, fields: tuple[str, ...], refuse: _Refuse) -> JudgedItem:
    if value is None:
        raise refuse(f"there is no {name}")
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise refuse(f"{name} is neither a text nor an object")

    _check_fields(value, fields, name, refuse)
    text = _text(value.get("text"), f"{name}.text", MAX_TEXT_CHARS, refuse)
    image = _text(value.get("image"), f"{name}.image", MAX_PATH_CHARS, refuse)
    if image is not None and not is_inside(image):
        raise refuse(
            f"{name}.image is a path inside the folder, relative and without '..', and not"
            f" {image[:_SHOWN]!r}"
        )
    if text is None and image is None:
        raise refuse(f"{name} has neither a text nor an image")
    return JudgedItem(text, image)


def _text(value: object, name: str, limit: int, refuse: _Refuse) -> str | None:
    """A text; None where there is none, or one of spaces alone."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise refuse(f"{name} is no text")
    if len(value) > limit or "\0" in value:
        raise refuse(f"{name} has up to {limit} characters, none of them NUL")
    return value if value.strip() else None


def _id(value: object, refuse: _Refuse) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is not None and (
        not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_CHARS or "\0" in value
    ):
        raise refuse(f"id is a text of 1 to {MAX_ID_CHARS} characters, none of them NUL")
    return value


def _check_fields(
    value: dict[str, Any], fields: tuple[str, ...], name: str, refuse: _Refuse
) -> None:
    for field in value.keys() - {*fields, _IGNORED}:
        raise refuse(
            f"{name} has an unknown field {field[:_SHOWN]!r}: its fields are {', '.join(fields)},"
            f" and {_IGNORED} for anything else"
        )
