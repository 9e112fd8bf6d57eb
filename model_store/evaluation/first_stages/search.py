"""The search of a dataset's queries, in parts that are kept in a folder.

Depends on a search as a protocol. Invariant: the candidates of a folder are of one dataset, one
first stage and one `top_k`; an interrupted search goes on behind its last part, and a finished one
is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model_store.errors import DataError
from model_store.evaluation.tasks.dataset import Dataset
from model_store.output_files import output_file
from model_store.parts import Note, Parts

Ranking = npt.NDArray[np.int64]
"""Numbers of documents in the order of their dataset, best first."""


class Search(Protocol):
    """Finds documents of one dataset."""

    def find(self, queries: Sequence[str], most: int) -> list[Ranking]:
        """The best `most` documents of each query, of equal scores the first; raises `DataError`
        or `TaskUnusable` for a query or a document that it cannot read."""
        ...

    @property
    def notice(self) -> str:
        """A sentence on what cannot be found; empty where there is nothing to say."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """The search of some queries of a dataset: the first stage as JSON, and its bounds."""

    dataset: Dataset
    queries: Sequence[str]
    first_stage: Mapping[str, Any]
    top_k: int
    queries_a_part: int

    @property
    def described(self) -> dict[str, Any]:
        """All that decides the candidates."""
        return {
            "dataset": self.dataset.name,
            "digest": self.dataset.digest,
            "documents": digest_of_ids(self.dataset.documents.ids),
            "queries": digest_of_ids(self.queries),
            "first_stage": dict(self.first_stage),
            "top_k": self.top_k,
            "queries_a_part": self.queries_a_part,
        }

    @property
    def parts(self) -> int:
        return -(-len(self.queries) // self.queries_a_part)

    def part(self, number: int) -> Sequence[str]:
        """The queries of a part."""
        first = number * self.queries_a_part
        last = min(first + self.queries_a_part, len(self.queries))
        return [self.queries[index] for index in range(first, last)]


class Candidates(Mapping[str, Sequence[str]]):
    """Documents by query, best first; 4 bytes of memory a candidate."""

    def __init__(self, dataset: Dataset, ends: dict[str, tuple[int, int]], numbers: Any) -> None:
        self._ids = dataset.documents.ids
        self._ends, self._numbers = ends, numbers

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ends)

    def __getitem__(self, query: str) -> list[str]:
        first, end = self._ends[query]
        return [self._ids[number] for number in self._numbers[first:end].tolist()]


def search_all(
    work: Work,
    folder: Path,
    open_search: Callable[[], Search],
    progress: Callable[[int], None],
) -> tuple[Candidates, str]:
    """The candidates of all queries, and the sentence on what cannot be found.

    A folder that has them all needs no search. `progress` is called with the number of queries of
    each part. Raises `DataError`.
    """
    parts = Parts(folder, work.described)
    search: Search | None = None
    for number in range(work.parts):
        queries = work.part(number)
        if parts.note(number) is None:
            search = search or open_search()
            _find_part(work, parts, number, search)
        progress(len(queries))
    return _read(work, parts)


def _find_part(work: Work, parts: Parts, number: int, search: Search) -> None:
    queries = work.part(number)
    most = work.top_k + _most_excluded(work.dataset, queries)
    ids = work.dataset.documents.ids
    kept: list[list[int]] = []
    for query, ranking in zip(queries, search.find(queries, most), strict=True):
        allowed = [n for n in ranking.tolist() if work.dataset.allows(query, ids[n])]
        kept.append(allowed[: work.top_k])

    with output_file(parts.path(number, ".i32")) as write:
        for numbers in kept:
            write(np.array(numbers, np.int32).tobytes())
    note: Note = {"counts": [len(numbers) for numbers in kept], "notice": search.notice}
    parts.finish(number, note)


def _most_excluded(dataset: Dataset, queries: Sequence[str]) -> int:
    """Documents that a dataset excludes from the candidates of a query, at most."""
    excluded = dataset.excluded or {}
    most = max((len(excluded.get(query, ())) for query in queries), default=0)
    return most + (1 if dataset.excludes_the_query else 0)


def _read(work: Work, parts: Parts) -> tuple[Candidates, str]:
    ends: dict[str, tuple[int, int]] = {}
    read: list[npt.NDArray[np.int32]] = []
    total, notice = 0, ""
    for number, note in enumerate(parts.notes(work.parts)):
        path = parts.path(number, ".i32")
        numbers = np.fromfile(path, np.int32)
        if len(numbers) != sum(note["counts"]):
            raise DataError(f"{path}: it is damaged; remove {parts.folder} to search again.")

        read.append(numbers)
        notice = note["notice"]
        for query, count in zip(work.part(number), note["counts"], strict=True):
            ends[query] = (total, total + count)
            total += count
    numbers = np.concatenate(read) if read else np.empty(0, np.int32)
    return Candidates(work.dataset, ends, numbers), notice


def digest_of_ids(ids: Sequence[str]) -> str:
    """The SHA-256 of ids in their order."""
    digest = hashlib.sha256()
    for each in ids:
        encoded = each.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()
