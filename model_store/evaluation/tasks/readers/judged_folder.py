"""A folder of one's own judged queries: `judgements.jsonl`, with images beside it.

Depends on rows of the file, not on models. The documents of a row are its candidates, in the order
in which they were shown. Invariant: every line was checked, and every image found, before a dataset
is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path

import msgspec

from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable
from model_store.evaluation.tasks.readers.images import FolderImages
from model_store.evaluation.tasks.readers.judged_rows import (
    JudgedItem,
    JudgedRow,
    Kind,
    parse_judged_row,
)
from model_store.lines import Lines

JUDGEMENTS = "judgements.jsonl"
MAX_ROWS = 500_000
MAX_PAIRS = 5_000_000
"""About 500 MB of memory."""
_ROWS_AT_ONCE = 32
"""Rows in memory: a query's documents are asked for one after the other."""
POSITIONS = 10
"""Positions whose judgements are counted."""


@dataclass(slots=True)
class Positions:
    """Documents that were shown at each of the first positions, and the relevant ones of them."""

    shown: list[int] = field(default_factory=lambda: [0] * POSITIONS)
    relevant: list[int] = field(default_factory=lambda: [0] * POSITIONS)

    def add(self, row: JudgedRow) -> None:
        for position, document in enumerate(row.documents[:POSITIONS]):
            self.shown[position] += 1
            self.relevant[position] += document.grade > 0


class JudgedFolder:
    """The rows of a folder, checked, with what they say before a model is asked.

    Rows without a relevant document cannot tell models apart, and are left out.
    """

    def __init__(self, folder: Path) -> None:
        """Scan the file. Raises `TaskUnusable` at the first line that is wrong."""
        self._path = folder / JUDGEMENTS
        self._images = FolderImages(folder)
        self._digest = hashlib.sha256()
        self._rows: dict[str, int] = {}
        self._scanned = self._pairs = 0
        self.kind: Kind | None = None
        self.without_relevant = 0
        self.positions = Positions()
        self._judgements: dict[str, dict[str, int]] = {}
        self._candidates: dict[str, list[str]] = {}
        self._instructions: dict[str, str] = {}
        self._lines = Lines(self._path, TaskUnusable, self._visit)
        self.row = lru_cache(_ROWS_AT_ONCE)(self._read_row)
        """The location and the row of a query."""
        if not self._rows:
            raise TaskUnusable(f"{self._path}: there are no rows with a relevant document.")

    def __len__(self) -> int:
        """The number of queries with a relevant document."""
        return len(self._rows)

    def dataset(self, name: str) -> Dataset:
        """The rows as a dataset with candidates of its own."""
        return Dataset(
            name=name,
            queries=_Queries(self, tuple(self._rows)),
            documents=_Documents(self, tuple(chain.from_iterable(self._candidates.values()))),
            judgements=self._judgements,
            digest=f"sha256:{self._digest.hexdigest()}",
            candidates=self._candidates,
            instructions=self._instructions or None,
        )

    def has_query(self, query: str) -> bool:
        return query in self._rows

    def documents_of(self, query: str) -> int:
        """The number of a query's documents; 0 where there is no such query."""
        return len(self._candidates.get(query, ()))

    def _read_row(self, query: str) -> tuple[str, JudgedRow]:
        number, line = self._lines.numbered(self._rows[query])
        location = f"{self._path}:{number}"
        return location, parse_judged_row(line, location)

    def item(self, item_id: str, location: str, found: JudgedItem) -> Item:
        """An item with its image."""
        image = None if found.image is None else self._images.read(found.image, location)
        return Item(item_id, found.text, image)

    def _visit(self, line: bytes, number: int) -> None:
        location = f"{self._path}:{number}"
        row = parse_judged_row(line, location)
        index, self._scanned = self._scanned, self._scanned + 1
        self._pairs += len(row.documents)
        if self._scanned > MAX_ROWS or self._pairs > MAX_PAIRS:
            raise TaskUnusable(
                f"{location}: there are more than {MAX_ROWS:,} rows, or {MAX_PAIRS:,} documents."
            )
        if row.kind is not None:
            if self.kind not in (None, row.kind):
                raise TaskUnusable(
                    f"{location}: there are grades and clicks: a file has one of them."
                )
            self.kind = row.kind

        self._check_images(row, location)
        self._digest.update(msgspec.msgpack.encode(msgspec.to_builtins(row)))
        self.positions.add(row)
        if any(document.grade > 0 for document in row.documents):
            self._add(row, row.id or str(number), index, location)
        else:
            self.without_relevant += 1

    def _check_images(self, row: JudgedRow, location: str) -> None:
        for item in (row.query, *(document.item for document in row.documents)):
            if item.image is not None:
                self._digest.update(self._images.check(item.image, location))

    def _add(self, row: JudgedRow, query: str, index: int, location: str) -> None:
        if query in self._rows:
            raise TaskUnusable(f"{location}: the id {query[:80]!r} is that of another row, too.")
        self._rows[query] = index
        documents = [f"{query}/{position}" for position in range(1, len(row.documents) + 1)]
        self._candidates[query] = documents
        self._judgements[query] = {
            name: document.grade
            for name, document in zip(documents, row.documents, strict=True)
            if document.grade
        }
        if row.instruction is not None:
            self._instructions[query] = row.instruction


@dataclass(frozen=True, slots=True)
class JudgedSource:
    """The dataset of a folder of judged queries."""

    name: str
    folder: Path

    def load(self) -> Dataset:
        """Check and index the file; raises `TaskUnusable`."""
        return JudgedFolder(self.folder).dataset(self.name)


@dataclass(frozen=True, slots=True)
class _Queries:
    """The queries of a folder."""

    folder: JudgedFolder
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self.folder.has_query(item_id)

    def __getitem__(self, item_id: str) -> Item:
        location, row = self.folder.row(item_id)
        return self.folder.item(item_id, location, row.query)

    def text(self, item_id: str) -> str | None:
        """As `Items.text`."""
        return self.folder.row(item_id)[1].query.text


@dataclass(frozen=True, slots=True)
class _Documents:
    """The documents of a folder, each of one query: their ids are QUERY/POSITION, from 1."""

    folder: JudgedFolder
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: object) -> bool:
        if not isinstance(item_id, str):
            return False
        query, _, position = item_id.rpartition("/")
        return position.isdecimal() and 1 <= int(position) <= self.folder.documents_of(query)

    def __getitem__(self, item_id: str) -> Item:
        query, _, position = item_id.rpartition("/")
        location, row = self.folder.row(query)
        return self.folder.item(item_id, location, row.documents[int(position) - 1].item)

    def text(self, item_id: str) -> str | None:
        """As `Items.text`."""
        query, _, position = item_id.rpartition("/")
        return self.folder.row(query)[1].documents[int(position) - 1].item.text
