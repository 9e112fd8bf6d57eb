"""A file of rows, such as `gmr convert` and `gmr mine` write, as a benchmark.

Where every row has negatives, its own documents are its candidates; otherwise a first stage finds
them in the corpus beside the rows. Depends on rows, not on networks. Rows are read when they are
asked for. Invariant: a row's irrelevant documents come before its relevant ones, so that a relevant
one loses all ties, as in `model_store.training.benchmark`.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_store.errors import DataError
from model_store.evaluation.tasks.benchmark import Benchmark, Task
from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable
from model_store.evaluation.tasks.readers.ids import DuplicateId, Ids, IdsBuilder
from model_store.evaluation.tasks.readers.items_by_id import ItemsById
from model_store.training.corpus_documents import CorpusDocuments, find_relevant
from model_store.training.data.converters.assemble import corpus_path_of
from model_store.training.data.identity import image_digest
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import Example, Side
from model_store.training.data.validation import check

METRIC = "ndcg@10"
MAX_ROWS = 1_000_000
_DOCUMENT = re.compile(r"([1-9]\d{0,8})/(\d{1,4})")
"""The number of a row from 1, and of one of its documents from 0, irrelevant ones first."""


def open_rows(path: Path) -> Benchmark:
    """A benchmark of one row, named as the file is. Raises `TaskUnusable`."""
    if not path.is_file():
        raise TaskUnusable(f"There is no file {str(path)[:200]!r}.")
    name = path.name.partition(".")[0]
    return Benchmark(name, (Task(name, name, METRIC, (RowsSource(name, path),)),))


@dataclass(frozen=True, slots=True)
class RowsSource:
    """The rows of a `.jsonl` file."""

    name: str
    path: Path

    def load(self) -> Dataset:
        """Check every row and image; raises `TaskUnusable` with the first problem."""
        try:
            examples = Examples(self.path)
            if not 1 <= len(examples) <= MAX_ROWS:
                raise DataError(
                    f"{self.path}: there are {len(examples)} rows; from 1 to {MAX_ROWS:,} can be"
                    " measured."
                )
            problems = list(check(self.path).problems)
            if problems:
                raise DataError(problems[0])
            return _dataset(self.name, examples, self.path)
        except DataError as error:
            raise TaskUnusable(str(error)) from None


def rows_digest(examples: Sequence[Example]) -> str:
    """The SHA-256 of the rows' instructions, queries, documents and pictures, in hexadecimal;
    raises `DataError`."""
    total = hashlib.sha256()
    for number in range(len(examples)):
        example = examples[number]
        contents: list[object] = [example.instruction, len(example.positives)]
        for side in (example.query, *example.positives, *_negatives(example)):
            image = None if side.image is None else image_digest(side.image).hex()
            contents.append((side.text, image))
        total.update(repr(contents).encode() + b"\n")
    return total.hexdigest()


def query_name(example: Example) -> str:
    """The row's id, or its line where it has none: the name of the file is not part of a query."""
    file, _, line = example.location.rpartition(":")
    return f"row {line}" if example.id == f"{Path(file).name}:{line}" else example.id


class RowQueries(ItemsById):
    """The queries of rows, by `query_name`."""

    def __init__(self, examples: Sequence[Example], ids: Ids) -> None:
        self._examples, self._ids = examples, ids

    def _read(self, number: int, item_id: str) -> Item:
        return _item(item_id, self._examples[number].query)

    def _read_text(self, number: int, item_id: str) -> str | None:
        return self._examples[number].query.text


class RowDocuments:
    """The documents of rows: the fourth of the third row is "3/3"."""

    def __init__(self, examples: Sequence[Example], counts: Sequence[int]) -> None:
        self._examples, self._counts = examples, counts
        self._ids = _DocumentIds(counts)

    @property
    def ids(self) -> Sequence[str]:
        """All ids, row by row."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._find(item_id) is not None

    def __getitem__(self, item_id: str) -> Item:
        return _item(item_id, self._side(item_id))

    def text(self, item_id: str) -> str | None:
        """As `Items.text`."""
        return self._side(item_id).text

    def _side(self, item_id: str) -> Side:
        found = self._find(item_id)
        if found is None:
            raise KeyError(item_id)
        row, document = found
        return _documents(self._examples[row])[document]

    def _find(self, item_id: str) -> tuple[int, int] | None:
        match = _DOCUMENT.fullmatch(item_id)
        if match is None:
            return None
        row, document = int(match[1]) - 1, int(match[2])
        known = row < len(self._counts) and document < self._counts[row]
        return (row, document) if known and match[2] == str(document) else None


class _DocumentIds(Sequence[str]):
    """The ids of documents, from the number of documents of each row."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._ends = array("Q")
        end = 0
        for count in counts:
            end += count
            self._ends.append(end)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # one id, never a slice
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = bisect_right(self._ends, index)
        return document_id(row, index - (self._ends[row - 1] if row else 0))


class _ByRow(Mapping[str, Sequence[str]]):
    """Candidates by query: all documents of its row."""

    def __init__(self, ids: Ids, counts: Sequence[int]) -> None:
        self._ids, self._counts = ids, counts

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __getitem__(self, query: str) -> Sequence[str]:
        row = self._ids.find(query)
        if row is None:
            raise KeyError(query)
        return [document_id(row, document) for document in range(self._counts[row])]


def document_id(row: int, document: int) -> str:
    """The id of a row's document, both numbered from 0."""
    return f"{row + 1}/{document}"


def _dataset(name: str, examples: Examples, path: Path) -> Dataset:
    builder, counts = IdsBuilder(), array("L")
    instructions: dict[str, str] = {}
    unranked: str | None = None
    for row in range(len(examples)):
        example = examples[row]
        builder.add(query_name(example))
        counts.append(len(_documents(example)))
        if not example.negatives:
            unranked = unranked or example.location
        if example.instruction is not None:
            instructions[query_name(example)] = example.instruction

    ids = _distinct(builder, examples)
    if unranked is None:
        dataset = _of_own_documents(name, examples, ids, counts)
    else:
        dataset = _of_corpus(name, examples, ids, corpus_path_of(path), unranked)
    return replace(dataset, instructions=instructions or None)


def _of_own_documents(name: str, examples: Examples, ids: Ids, counts: Sequence[int]) -> Dataset:
    """Rows with negatives: each ranks its own documents."""
    judgements = {}
    for row, query in enumerate(ids):
        relevant = range(counts[row] - len(examples[row].positives), counts[row])
        judgements[query] = {document_id(row, document): 1 for document in relevant}
    return Dataset(
        name=name,
        queries=RowQueries(examples, ids),
        documents=RowDocuments(examples, counts),
        judgements=judgements,
        digest=f"sha256:{rows_digest(examples)}",
        candidates=_ByRow(ids, counts),
    )


def _of_corpus(name: str, examples: Examples, ids: Ids, corpus: Path, unranked: str) -> Dataset:
    """Rows without negatives: a first stage finds candidates in the corpus beside them."""
    if not corpus.is_file():
        raise DataError(
            f"{unranked}: there is no negative to rank the positives against, and no corpus"
            f" {corpus.name} to find candidates in."
        )
    documents = CorpusDocuments(corpus)
    digest = hashlib.sha256((rows_digest(examples) + documents.digest).encode())
    return Dataset(
        name=name,
        queries=RowQueries(examples, ids),
        documents=documents,
        judgements=find_relevant(examples, ids, documents),
        digest=f"sha256:{digest.hexdigest()}",
    )


def _distinct(builder: IdsBuilder, examples: Examples) -> Ids:
    try:
        return builder.build()
    except DuplicateId as error:
        first, location = examples[error.first].line, examples[error.second].location
        raise DataError(
            f"{location}: the id {error.item_id[:80]!r} is that of line {first}, too."
        ) from None


def _documents(example: Example) -> list[Side]:
    return [*_negatives(example), *example.positives]


def _negatives(example: Example) -> list[Side]:
    return [negative.side for negative in example.negatives]


def _item(item_id: str, side: Side) -> Item:
    try:
        image = None if side.image is None else side.image.read_bytes()
    except OSError as error:
        raise TaskUnusable(f"{side.image}: the image cannot be read ({error.strerror}).") from None
    return Item(item_id, side.text, image)
