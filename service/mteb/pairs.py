"""The pairs that mteb asks for, as queries with their documents.

mteb gives two loaders of equal length, whose rows are the two sides of the pairs; a query's row is
repeated for each of its documents. Depends on datasets and Pillow, not on the service. Invariant:
each pair is in exactly one question, and questions follow the order of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets

from model_store.evaluation.tasks.dataset import Item
from service.mteb.pictures import encoded

MAX_DOCUMENTS = 1_000
MAX_BYTES = 64 * 2**20
"""The bounds of one question: those of a service's requests, so that memory is bounded, too."""

Row = Mapping[str, Any]
Instruct = Callable[[Row], tuple[str | None, str]]
"""A query's row to its instruction, and the name of the column with its text."""


@dataclass
class Question:
    """A query and documents of pairs that follow each other. `first` is the number of the first
    pair, and `rank` its place among the query's documents."""

    first: int
    rank: int
    query: Item
    instruction: str | None
    documents: list[Item] = field(default_factory=list)
    size: int = 0

    def add(self, document: Item) -> None:
        """Take one more document."""
        self.documents.append(document)
        self.size += len(document.text or "") + len(document.image or b"")

    @property
    def is_full(self) -> bool:
        """True at the bounds of a question."""
        return len(self.documents) >= MAX_DOCUMENTS or self.size >= MAX_BYTES


def questions(queries: Any, documents: Any, instruct: Instruct) -> Iterator[Question]:
    """The pairs of two loaders as questions. Raises `ValueError` where their lengths differ."""
    current: Question | None = None
    pairs = zip(_rows(queries), _rows(documents), strict=True)
    for number, (query_row, document_row) in enumerate(pairs):
        instruction, column = instruct(query_row)
        query = _item(query_row, column)
        rank = 0
        if current is not None and (current.query, current.instruction) == (query, instruction):
            rank = current.rank + len(current.documents)
        if current is None or rank == 0 or current.is_full:
            if current is not None:
                yield current
            current = Question(number, rank, query, instruction)
        current.add(_item(document_row, "text"))
    if current is not None:
        yield current


def length(loader: Any) -> int | None:
    """The number of a loader's rows, where it is known."""
    dataset: Any = getattr(loader, "dataset", None)
    return len(dataset) if hasattr(dataset, "__len__") else None


def _item(row: Row, column: str) -> Item:
    text = row.get(column)
    return Item(
        id=str(row.get("id", "")),
        text=None if text is None else str(text),
        image=encoded(row.get("image")),
    )


def _rows(loader: Any) -> Iterable[Row]:
    """A loader's rows: those of its table, whose images are not decoded, or else its batches'."""
    table: Any = getattr(loader, "dataset", None)
    if not isinstance(table, datasets.Dataset):
        return _unbatched(loader)
    if isinstance(table.features.get("image"), datasets.Image):
        table = table.cast_column("image", datasets.Image(decode=False))
    rows: Iterable[Row] = table
    return rows


def _unbatched(batches: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for batch in batches:
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
