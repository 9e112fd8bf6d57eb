"""The corpus beside a file of rows, as `gmr convert` writes both, as the documents of a dataset.

Depends on rows and corpora, not on networks. Memory is about 60 bytes a document. Invariant: every
relevant document of a row is a document of the corpus, with the same text and the same image file.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from model_store.errors import DataError
from model_store.evaluation.tasks.dataset import Item, TaskUnusable
from model_store.evaluation.tasks.readers.ids import DuplicateId, Ids, IdsBuilder
from model_store.evaluation.tasks.readers.images import FolderImages
from model_store.evaluation.tasks.readers.items_by_id import ItemsById
from model_store.training.data.corpus import Corpus, Document
from model_store.training.data.rows import Example, Side


class CorpusDocuments(ItemsById):
    """The documents of a corpus by their ids, and by their contents."""

    def __init__(self, path: Path) -> None:
        """Scan the corpus and look at every image; raises `DataError` and `TaskUnusable`."""
        self._corpus, self._images = Corpus(path), FolderImages(path.parent)
        digest, builder, contents = hashlib.sha256(), IdsBuilder(), array("Q")
        for document in self._corpus:
            builder.add(document.id)
            contents.append(_content_hash(document.side))
            digest.update(msgspec.msgpack.encode(self._identity(document)))

        self._ids = self._distinct(builder)
        by_number = np.frombuffer(contents, np.uint64)
        self._order = np.argsort(by_number, kind="stable")
        self._contents = by_number[self._order]
        self.name, self.digest = path.name, digest.hexdigest()

    def _read(self, number: int, item_id: str) -> Item:
        document = self._document(number)
        image = document.side.image
        content = None if image is None else self._images.read(self._name(image), document.location)
        return Item(item_id, document.side.text, content)

    def _read_text(self, number: int, item_id: str) -> str | None:
        return self._document(number).side.text

    def _document(self, number: int) -> Document:
        try:
            return self._corpus[number]
        except DataError as error:
            raise TaskUnusable(str(error)) from None

    def find(self, side: Side) -> str | None:
        """The id of the first document with the same text and the same image file."""
        hashed = np.uint64(_content_hash(side))
        position = int(np.searchsorted(self._contents, hashed))
        while position < len(self._contents) and self._contents[position] == hashed:
            document = self._corpus[int(self._order[position])]
            if document.side == side:
                return document.id
            position += 1
        return None

    def _identity(self, document: Document) -> tuple[str | bytes | None, ...]:
        image = document.side.image
        if image is None:
            return (document.id, document.side.text)
        name = self._name(image)
        return (document.id, document.side.text, self._images.check(name, document.location))

    def _name(self, image: Path) -> str:
        return image.relative_to(self._corpus.path.parent).as_posix()

    def _distinct(self, builder: IdsBuilder) -> Ids:
        try:
            return builder.build()
        except DuplicateId as error:
            first = self._corpus[error.first].location.rpartition(":")[2]
            raise DataError(
                f"{self._corpus[error.second].location}: the id {error.item_id[:80]!r} is that of"
                f" line {first}, too."
            ) from None


def find_relevant(
    examples: Sequence[Example], queries: Sequence[str], documents: CorpusDocuments
) -> dict[str, dict[str, int]]:
    """Grades of the relevant documents of each row, by their ids; raises `DataError`."""
    judgements: dict[str, dict[str, int]] = {}
    for row, query in enumerate(queries):
        example = examples[row]
        grades = {}
        for number, side in enumerate(example.positives):
            document = documents.find(side)
            if document is None:
                raise DataError(
                    f"{example.location}: positives[{number}] is no document of {documents.name}."
                )
            grades[document] = 1
        judgements[query] = grades
    return judgements


def _content_hash(side: Side) -> int:
    """A hash of a text and of the path of an image, whose file is not read."""
    text = b"" if side.text is None else side.text.encode()
    image = b"" if side.image is None else str(side.image).encode()
    framed = len(text).to_bytes(8, "big") + text + image
    return int.from_bytes(hashlib.blake2b(framed, digest_size=8).digest(), "big")
