"""Queries or documents of a JSON lines file, with images beside it.

Does not depend on judgements. The file is scanned once, and items are read when they are asked for:
memory is about 40 bytes an item, and its id. Invariant: every line was checked, and every image
found, before the first item is read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from model_store.evaluation.tasks.dataset import Item, TaskUnusable
from model_store.evaluation.tasks.readers.ids import DuplicateId, Ids, IdsBuilder
from model_store.evaluation.tasks.readers.images import FolderImages
from model_store.evaluation.tasks.readers.item_rows import ItemRow, parse_item
from model_store.evaluation.tasks.readers.items_by_id import ItemsById
from model_store.lines import Lines

MAX_ITEMS = 50_000_000
"""About 3 GB of memory. The largest corpus of BEIR has 8.8 million documents."""


class JsonItems(ItemsById):
    """The items of a file, by id and in the file's order."""

    def __init__(
        self, path: Path, images: FolderImages, *, query: bool, limit: int = MAX_ITEMS
    ) -> None:
        """Scan the file; raises `TaskUnusable` at the first line that is wrong."""
        self.path, self._images, self._query = path, images, query
        self.instructions: dict[str, str] = {}
        """Instructions of single queries."""
        digest, builder = hashlib.sha256(), IdsBuilder()

        def visit(line: bytes, number: int) -> None:
            if len(builder) == limit:
                raise TaskUnusable(f"{path}:{number}: there are more than {limit:,} rows.")
            row = self._parse(line, number)
            image = None if row.image is None else images.check(row.image, f"{path}:{number}")
            digest.update(
                msgspec.msgpack.encode((row.id, row.text, row.image, image, row.instruction))
            )
            builder.add(row.id)
            if row.instruction is not None:
                self.instructions[row.id] = row.instruction

        self._lines = Lines(path, TaskUnusable, visit)
        if not len(builder):
            raise TaskUnusable(f"{path}: there are no rows.")
        self._ids = self._build(builder)
        self.digest = digest.hexdigest()

    def _read(self, number: int, item_id: str) -> Item:
        line_number, line = self._lines.numbered(number)
        row = self._parse(line, line_number)
        image = None
        if row.image is not None:
            image = self._images.read(row.image, f"{self.path}:{line_number}")
        return Item(row.id, row.text, image)

    def _read_text(self, number: int, item_id: str) -> str | None:
        line_number, line = self._lines.numbered(number)
        return self._parse(line, line_number).text

    def _parse(self, line: bytes, number: int) -> ItemRow:
        return parse_item(line, f"{self.path}:{number}", query=self._query)

    def _build(self, builder: IdsBuilder) -> Ids:
        try:
            return builder.build()
        except DuplicateId as error:
            first, _ = self._lines.numbered(error.first)
            second, _ = self._lines.numbered(error.second)
            raise TaskUnusable(
                f"{self.path}:{second}: the id {error.item_id[:80]!r} is that of line {first}, too."
            ) from None
