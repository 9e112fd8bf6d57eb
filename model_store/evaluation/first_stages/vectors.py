"""Search of a dataset by vectors, with the miner's models and its files of vectors.

Depends on an embedder as a protocol. Invariant: the search is exact, and the vector of a document
is made once for all runs that share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import DataError
from model_store.evaluation.first_stages.naming import FirstStage
from model_store.evaluation.first_stages.search import Ranking, digest_of_ids
from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable
from model_store.parts import file_identity
from model_store.retrieval.embedder import Embedder, Query
from model_store.retrieval.exact import search_exactly
from model_store.retrieval.found import Vectors
from model_store.retrieval.vectors import BATCH, VectorFiles, checked, embed_corpus

QUERIES_A_PART = 4_096
"""Queries that are searched in one pass over the vectors."""
_MAX_FILES = 1_000
"""Files of a model's folder."""


class DatasetDocuments:
    """The documents of a dataset, as `retrieval.vectors.Documents`."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._ids = dataset.documents.ids
        self.identity: Mapping[str, Any] = {
            "dataset": dataset.name,
            "digest": dataset.digest,
            "ids": digest_of_ids(self._ids),
        }

    def __len__(self) -> int:
        return len(self._ids)

    def contents(self, numbers: range) -> tuple[list[Item], list[str]]:
        """Some documents, and their names for errors."""
        ids = [self._ids[number] for number in numbers]
        names = [f"{self._dataset.name}, document {each!r}" for each in ids]
        return [self._dataset.documents[each] for each in ids], names


class DenseSearch:
    """Finds documents by vectors."""

    notice = ""

    def __init__(
        self,
        dataset: Dataset,
        documents: DatasetDocuments,
        embedder: Embedder,
        folder: Path,
        progress: Callable[[str, int], None],
    ) -> None:
        """Make the vectors of documents that `folder` lacks; raises `DataError`."""
        self._dataset, self._embedder = dataset, embedder
        embed_corpus(documents, embedder, folder, progress=lambda done: progress("documents", done))
        self._files = VectorFiles(documents, embedder, folder)

    def find(self, queries: Sequence[str], most: int) -> list[Ranking]:
        """As `Search.find`."""
        batches: list[Vectors] = []
        for start in range(0, len(queries), BATCH):
            asked = [self._query(query) for query in queries[start : start + BATCH]]
            batches.append(checked(self._embedder.queries(asked), len(asked), self._embedder))
        found = search_exactly(self._files, np.concatenate(batches), most)
        return [each.numbers for each in found]

    def _query(self, query: str) -> Query:
        location = f"{self._dataset.name}, query {query!r}"
        return Query(self._dataset.instruction_of(query), self._dataset.queries[query], location)


def open_embedder(stage: FirstStage, device: str | None) -> Embedder:
    """Load the model of a first stage; raises `DataError`."""
    assert stage.source is not None
    if stage.kind == "gme":
        from model_store.retrieval.gme import Gme

        return Gme(stage.source, revision=stage.revision, device=device)

    from model_store.retrieval.dense import Dense

    return Dense(stage.source, revision=stage.revision, device=device)


def files_digest(stage: FirstStage) -> str:
    """The SHA-256 of the files of a model's folder, as `described_model` has them, in hexadecimal;
    "" for a model of the hub. Raises `TaskUnusable`."""
    try:
        files = described_model(stage).get("files")
    except DataError as error:
        raise TaskUnusable(str(error)) from None
    return hashlib.sha256(json.dumps(files).encode()).hexdigest() if files is not None else ""


def described_model(stage: FirstStage) -> dict[str, Any]:
    """A model as JSON, without loading it: its name, and the files of a folder by their sizes and
    ends. Raises `DataError`."""
    assert stage.source is not None
    described: dict[str, Any] = {
        "kind": stage.kind,
        "model": stage.source,
        "revision": stage.revision,
    }
    folder = Path(stage.source)
    if folder.is_dir():
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        if len(files) > _MAX_FILES:
            raise DataError(f"{folder}: a model has at most {_MAX_FILES:,} files.")
        described["files"] = [file_identity(path) for path in files]
    return described
