"""One line of `corpus.jsonl` or `queries.jsonl`: an id with a text, an image's path, or both.

Does not depend on files. Invariant: the path of an image is relative and leads to no folder above;
a misspelt field is refused, never left out in silence.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import msgspec

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.readers.ids import MAX_ID_CHARS

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_PATH_CHARS = 1_024
MAX_INSTRUCTION_CHARS = 10_000
_FIELDS = ("_id", "id", "title", "text", "image", "instruction", "metadata")
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
    if image is not None:
        _check_path(image, location)
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


def _check_path(image: str, location: str) -> None:
    parts = PurePosixPath(image).parts
    outside = image.startswith("/") or ".." in parts or not parts
    if outside or len(image) > MAX_PATH_CHARS or set("\\\0") & set(image) or ":" in parts[0]:
        raise TaskUnusable(
            f"{location}: image is a path inside the folder, relative and without '..', and not"
            f" {image[:_SHOWN]!r}."
        )


def _refuse_misspelt(row: dict[str, Any], location: str) -> None:
    """Fields that nothing reads are allowed, unless they resemble one that is read."""
    for name in row.keys() - set(_FIELDS):
        similar = difflib.get_close_matches(name.lower().rstrip("s"), _FIELDS, 1, 0.8)
        if similar:
            raise TaskUnusable(
                f"{location}: there is an unknown field {name[:_SHOWN]!r}: is it {similar[0]!r}?"
            )
