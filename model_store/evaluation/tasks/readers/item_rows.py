"""One line of `corpus.jsonl` or `queries.jsonl`: an id with a text, an image's path, or both.

Does not depend on files. Invariant: the path of an image is relative and leads to no folder above;
a misspelt field is refused, never left out in silence.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.readers.ids import MAX_ID_CHARS
from model_store.evaluation.tasks.readers.images import is_inside

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_INSTRUCTION_CHARS = 10_000
_CONTENTS = ("title", "text", "image", "instruction")
_FIELDS = frozenset(("_id", "id", "metadata", *_CONTENTS))
_SHOWN = 40

_decoder = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class ItemRow:
    """A query or a document of a file; `image` is the path of its image in the folder."""

    id: str
    text: str | None
    image: str | None
    instruction: str | None


def parse_item(line: bytes, location: str, *, query: bool) -> ItemRow:
    """The query or document of a line; `location` is `file:line`.

    A title comes before the text. A document without text and image has an empty text, since public
    corpora have such ones. Instructions are of queries alone. Raises `TaskUnusable`.
    """
    try:
        row = _decoder.decode(line.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TaskUnusable(f"{location}: this is not one JSON object in UTF-8.") from None

    _refuse_misspelt(row, location)
    image = _text_of(row, "image", location) or None
    if image is not None and not is_inside(image):
        raise TaskUnusable(
            f"{location}: image is a path inside the folder, relative and without '..', and not"
            f" {image[:_SHOWN]!r}."
        )
    title, body = _text_of(row, "title", location), _text_of(row, "text", location)
    full = f"{title} {body}".strip() if title.strip() else body
    text = full if full.strip() else None
    if text is None and image is None:
        if query:
            raise TaskUnusable(f"{location}: there is no text, and no image.")
        text = ""

    instruction = _instruction_of(row, location) if query else None
    return ItemRow(_id_of(row, location), text, image, instruction)


def _instruction_of(row: dict[str, Any], location: str) -> str | None:
    instruction = _text_of(row, "instruction", location).strip()
    if len(instruction) > MAX_INSTRUCTION_CHARS:
        raise TaskUnusable(
            f"{location}: the instruction has more than {MAX_INSTRUCTION_CHARS} characters."
        )
    return instruction or None


def _id_of(row: dict[str, Any], location: str) -> str:
    value = row["_id"] if row.get("_id") is not None else row.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise TaskUnusable(f"{location}: there is no '_id', which is a text.")
    if not 1 <= len(value) <= MAX_ID_CHARS or "\0" in value:
        raise TaskUnusable(
            f"{location}: an id has 1 to {MAX_ID_CHARS} characters, none of them NUL."
        )
    return value


def _text_of(row: dict[str, Any], name: str, location: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TaskUnusable(f"{location}: {name} is no text.")
    return value


def _refuse_misspelt(row: dict[str, Any], location: str) -> None:
    """Fields that nothing reads are allowed, unless they resemble one that is read."""
    for name in row.keys() - _FIELDS:
        similar = _similar(name)
        if similar:
            raise TaskUnusable(
                f"{location}: there is an unknown field {name[:_SHOWN]!r}: is it {similar!r}?"
            )


@lru_cache(256)
def _similar(name: str) -> str | None:
    """The field of an item that a name resembles; None for other names."""
    found = difflib.get_close_matches(name[:_SHOWN].lower().rstrip("s"), _CONTENTS, 1, 0.8)
    return found[0] if found else None
