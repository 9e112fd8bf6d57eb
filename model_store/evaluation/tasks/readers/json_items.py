"""Queries or documents of a JSON lines file, with images beside it.

Does not depend on judgements. The file is scanned once, and items are read when they are asked for:
memory is about 40 bytes an item, and its id. Invariant: every line was checked, and every image
found, before the first item is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from model_store.evaluation.tasks.dataset import Item, TaskUnusable
from model_store.evaluation.tasks.readers.ids import DuplicateId, Ids, IdsBuilder
from model_store.evaluation.tasks.readers.images import FolderImages
from model_store.evaluation.tasks.readers.item_rows import ItemRow, parse_item
from model_store.lines import Lines

MAX_ITEMS = 50_000_000
"""About 3 GB of memory. The largest corpus of BEIR has 8.8 million documents."""


class JsonItems:
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

    @property
    def ids(self) -> Sequence[str]:
        """All ids, in the file's order."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._ids

    def __getitem__(self, item_id: str) -> Item:
        index = self._ids.find(item_id)
        if index is None:
            raise KeyError(item_id)
        number, line = self._lines.numbered(index)
        row = self._parse(line, number)
        image = None
        if row.image is not None:
            image = self._images.read(row.image, f"{self.path}:{number}")
        return Item(row.id, row.text, image)

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
