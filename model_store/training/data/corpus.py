"""A corpus to search: a file of documents, one JSON object a line, each with an id.

Does not depend on queries or retrievers. Invariant: a document has an id, and a text, an image, or
both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from model_store.errors import DataError
from model_store.output_files import json_line
from model_store.parts import file_identity
from model_store.training.data.decoding import decode
from model_store.training.data.image_files import relative_name
from model_store.training.data.row_index import KeyedLines
from model_store.training.data.rows import MAX_ID_CHARS, Side, side_of


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `location` is `file:line`."""

    id: str
    side: Side
    location: str = ""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    text: str | None = None
    image: str | None = None


_decoder = msgspec.json.Decoder(_Row)
_FIELDS = {"": ("id", "text", "image")}


def parse_document(row: bytes, path: Path, number: int) -> Document:
    """One line of `path` as a document; raises `DataError`."""
    location = f"{path}:{number}"
    try:
        document = decode(_decoder, row, location, _FIELDS)
    except ValueError as error:
        raise DataError(str(error)) from None

    try:
        if not 1 <= len(document.id) <= MAX_ID_CHARS:
            raise ValueError(f"the id must have 1 to {MAX_ID_CHARS} characters")
        side = side_of(document.text, document.image, "the document", path.parent)
    except ValueError as error:
        raise DataError(f"{location}: {error}.") from None
    return Document(document.id, side, location)


class Corpus(Sequence[Document]):
    """The documents of a `.jsonl` file, by index from 0 and by id.

    Construction reads and checks every row once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = KeyedLines(path, lambda row, number: parse_document(row, path, number).id)
        if not len(self):
            raise DataError(f"{path}: there are no documents.")

    def __len__(self) -> int:
        return len(self._lines.lines)

    def __getitem__(self, index: int) -> Document:  # type: ignore[override]  # never a slice
        number, row = self._lines.lines.numbered(index)
        return parse_document(row, self.path, number)

    @property
    def identity(self) -> dict[str, Any]:
        """The file, its size and a digest of its ends, as JSON."""
        return file_identity(self.path)

    def contents(self, numbers: range) -> tuple[list[Side], list[str]]:
        """Some documents, and their locations."""
        documents = [self[number] for number in numbers]
        sides = [document.side for document in documents]
        return sides, [document.location for document in documents]

    def find(self, identity: str) -> Document | None:
        """The first document of this id; None where there is none."""
        found = self._lines.find(identity)
        if found is None:
            return None
        number, row = found
        return parse_document(row, self.path, number)


def document_line(document: Document, folder: Path) -> bytes:
    """A document as a row of a file in `folder`; raises `DataError` for an image outside it."""
    row = {"id": document.id}
    if document.side.text is not None:
        row["text"] = document.side.text
    if document.side.image is not None:
        row["image"] = relative_name(folder, document.side.image)
    return json_line(row)
