"""What is searched: a file of documents, one JSON object a line, each with an id of its own.

Knows the row's form and where each line begins, nothing of queries. Invariant: a document has an
id, and a text, an image, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_store.training.data.decoding import decode
from model_store.training.data.image_files import name_in
from model_store.training.data.row_files import line
from model_store.training.data.row_index import KeyedLines
from model_store.training.data.rows import MAX_ID_CHARS, DataError, Side, side_of


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `place` is `file:line`."""

    id: str
    side: Side
    place: str = ""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    text: str | None = None
    image: str | None = None


_decoder = msgspec.json.Decoder(_Row)
_FIELDS = {"": ("id", "text", "image")}


def parse_document(row: bytes, path: Path, number: int) -> Document:
    """One line of `path`; raises `DataError`, which names file and line."""
    place = f"{path}:{number}"
    try:
        document = decode(_decoder, row, place, _FIELDS)
    except ValueError as error:
        raise DataError(str(error)) from None
    try:
        if not 1 <= len(document.id) <= MAX_ID_CHARS:
            raise ValueError(f"the id must have 1 to {MAX_ID_CHARS} characters")
        return Document(
            document.id, side_of(document.text, document.image, "the document", path.parent), place
        )
    except ValueError as error:
        raise DataError(f"{place}: {error}.") from None


class Corpus(Sequence[Document]):
    """The documents of a `.jsonl` file, by number from 0 and by id. Every row is read once, and
    checked, when it is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = KeyedLines(path, lambda row, number: parse_document(row, path, number).id)
        if not len(self):
            raise DataError(f"{path}: there are no documents.")

    def __len__(self) -> int:
        return len(self._lines.lines)

    def __getitem__(self, place: int) -> Document:  # type: ignore[override]  # one document, never a slice
        number, row = self._lines.lines.numbered(place)
        return parse_document(row, self.path, number)

    def find(self, identity: str) -> Document | None:
        """The document of this id; of several, the first."""
        found = self._lines.find(identity)
        return None if found is None else parse_document(found[1], self.path, found[0])


def document_line(document: Document, folder: Path) -> bytes:
    """A document as a row of a file in `folder`; raises `DataError` for an image that does not lie
    inside it."""
    row = {"id": document.id}
    if document.side.text is not None:
        row["text"] = document.side.text
    if document.side.image is not None:
        row["image"] = name_in(folder, document.side.image)
    return line(row)
