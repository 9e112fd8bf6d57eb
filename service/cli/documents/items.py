"""One item, a query or a document, as `POST /rerank` takes it.

Does not depend on HTTP. Invariant: a picture is read from its file when its request is made, so
that a long list of pictures is never in memory as a whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from service.cli.documents.pictures import Unreadable, encoded_picture, read_picture

MAX_ID_CHARS = 256
"""The longest id that a service takes."""


class Unusable(Exception):
    """Input that cannot be ranked; the message is one sentence with its place."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document: `name` is for messages; `fields` are an item's, or an item that is a string.

    `picture` is the file of its image, if it is not in `fields`.
    """

    name: str
    fields: Any
    picture: Path | None = None

    @classmethod
    def of_picture(cls, file: Path) -> Self:
        """A picture file, whose path is its id."""
        name = printable_path(file)
        return cls(name, _identity(name), file)

    @classmethod
    def of_text_file(cls, file: Path, max_bytes: int) -> Self:
        """A text file as one document, whose path is its id. Raises `Unusable` and `OSError`."""
        name = printable_path(file)
        with file.open("rb") as opened:
            content = opened.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise Unusable(f"{name}: the file is larger than {max_bytes // 2**20} MiB.")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Unusable(f"{name}: the file is not UTF-8 text.") from None
        return cls(name, {**_identity(name), "text": text})

    @property
    def text(self) -> str:
        """The text to show for it; "" without one."""
        if isinstance(self.fields, str):
            return self.fields
        text = self.fields.get("text") if isinstance(self.fields, dict) else None
        return text if isinstance(text, str) else ""

    def read(self) -> tuple[Any, bytes | None]:
        """The item to send without the picture of a file, and the picture. Raises `Unreadable`."""
        return self.fields, None if self.picture is None else read_picture(self.picture)


def query_item(text: str | None, picture: Path | None) -> dict[str, str]:
    """The query to send. Raises `Unusable` for a picture that cannot be read."""
    item: dict[str, str] = {}
    if text:
        item["text"] = text
    if picture:
        try:
            item["image"] = encoded_picture(picture)
        except Unreadable as error:
            raise Unusable(f"{printable_path(picture)}: {lower_first(str(error))}") from None
    return item


def printable_path(path: Path) -> str:
    """A path as text that can be printed and sent."""
    return os.fsencode(path).decode("utf-8", "replace")


def lower_first(sentence: str) -> str:
    """A sentence as it follows a colon."""
    return sentence[:1].lower() + sentence[1:]


def _identity(name: str) -> dict[str, Any]:
    return {"id": name} if len(name) <= MAX_ID_CHARS else {}
