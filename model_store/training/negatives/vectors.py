"""A corpus as vectors: made in parts, kept in files, searched with FAISS.

Depends on numbers and files, not on a model. Invariant: the vectors of a folder are of one corpus
and one model, and part p begins at document p * `documents_a_part`, so that several processes may
make them and an interrupted one continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from model_store.training.data.corpus import Corpus
from model_store.training.data.resumable import Parts, file_identity
from model_store.training.data.row_files import output_file
from model_store.training.data.rows import DataError, Side
from model_store.training.negatives.retrievers import Embedder, Found, Query, Vectors, in_order

DOCUMENTS_A_PART = 4_096
BATCH = 32
FLAT_UP_TO = 1_000_000
"""Larger corpora are searched in cells (IVF): exact search reads every vector for every query."""
_SAMPLES_A_CELL = 64
_SEED = 1234


def parts_of(documents: int, documents_a_part: int = DOCUMENTS_A_PART) -> int:
    """Number of parts of so many documents' vectors."""
    return -(-documents // documents_a_part)


def embed_corpus(
    corpus: Corpus,
    embedder: Embedder,
    folder: Path,
    *,
    parts: Iterable[int] | None = None,
    documents_a_part: int = DOCUMENTS_A_PART,
    progress: Callable[[int], None] = lambda documents: None,
) -> None:
    """Make the vectors that `folder` lacks, of `parts` or of all parts.

    `progress` is called with the number of documents of each part. Raises `DataError`.
    """
    work = _work(corpus, embedder, folder)
    if parts is None:
        parts = range(parts_of(len(corpus), documents_a_part))

    for part in parts:
        first = part * documents_a_part
        last = min(first + documents_a_part, len(corpus))
        if work.note(part) is None:
            batches: list[Vectors] = []
            for start in range(first, last, BATCH):
                numbers = range(start, min(start + BATCH, last))
                batches.append(_embedded(corpus, embedder, numbers))
            vectors = np.concatenate(batches)
            with output_file(work.path(part, ".f32")) as write:
                write(vectors.tobytes())
            work.finish(part, {"documents": last - first})
        progress(last - first)


def _embedded(corpus: Corpus, embedder: Embedder, numbers: range) -> Vectors:
    documents = [corpus[number] for number in numbers]
    sides = [document.side for document in documents]
    locations = [document.location for document in documents]
    return checked(embedder.documents(sides, locations), len(documents), embedder)


def checked(vectors: Vectors, rows: int, embedder: Embedder) -> Vectors:
    """The same vectors; raises `DataError` where their shape or a value breaks the protocol."""
    if vectors.shape != (rows, embedder.dimensions) or not np.isfinite(vectors).all():
        raise DataError(
            f"The model gives vectors that are not finite, or not {embedder.dimensions} long:"
            f" {embedder.described}."
        )

    return np.ascontiguousarray(vectors, np.float32)


def _work(corpus: Corpus, embedder: Embedder, folder: Path) -> Parts:
    described = {
        "corpus": file_identity(corpus.path),
        "documents": len(corpus),
        "dimensions": embedder.dimensions,
    }
    return Parts(folder, described | {"model": embedder.described})


class VectorSearch:
    """A retriever by inner product: exact up to `flat_up_to` documents, beyond that in cells of
    FAISS."""

    bin_width = 0.05

    def __init__(
        self,
        corpus: Corpus,
        embedder: Embedder,
        folder: Path,
        *,
        flat_up_to: int = FLAT_UP_TO,
        documents_a_part: int = DOCUMENTS_A_PART,
    ) -> None:
        """Read the vectors that `embed_corpus` made with the same `documents_a_part`; raises
        `DataError` where some are missing."""
        work = _work(corpus, embedder, folder)
        parts = parts_of(len(corpus), documents_a_part)
        for _ in work.notes(parts):
            pass
        self._documents_a_part = documents_a_part
        self._embedder = embedder
        self._last: tuple[Query, Vectors] | None = None
        self._files = [work.path(part, ".f32") for part in range(parts)]
        self._index, kind = self._built(len(corpus), flat_up_to)
        self.described: dict[str, Any] = {
            "retriever": "vectors",
            "model": embedder.described,
            "index": kind,
            "faiss": faiss.__version__,
        }

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """As `Retriever.search`."""
        vectors = checked(self._embedder.queries(queries), len(queries), self._embedder)
        all_scores, all_numbers = self._index.search(vectors, most)
        found: list[Found] = []
        for numbers, scores in zip(all_numbers, all_scores, strict=True):
            filled = numbers >= 0  # FAISS fills up with -1
            found.append(in_order(numbers[filled], scores[filled]))
        return found

    def score(self, query: Query, sides: Sequence[Side]) -> list[float | None]:
        """As `Retriever.score`; sides are embedded anew, also those of the corpus."""
        made = self._embedder.documents(sides, [query.location] * len(sides))
        vectors = checked(made, len(sides), self._embedder)
        return [float(score) for score in vectors @ self._vector(query)]

    def score_documents(self, query: Query, numbers: Sequence[int]) -> list[float | None]:
        """As `Retriever.score_documents`, from the vectors that were made."""
        if not numbers:
            return []

        rows = np.stack([self._row(number) for number in numbers])
        return [float(score) for score in rows @ self._vector(query)]

    def _vector(self, query: Query) -> Vectors:
        """The query's vector; that of the latest query is kept."""
        if self._last is None or self._last[0] != query:
            self._last = (query, checked(self._embedder.queries([query]), 1, self._embedder)[0])
        return self._last[1]

    def _row(self, number: int) -> Vectors:
        part, row = divmod(number, self._documents_a_part)
        try:
            vectors = np.memmap(self._files[part], np.float32, mode="r").reshape(
                -1, self._embedder.dimensions
            )
        except (OSError, ValueError):
            raise _no_vectors(self._files[part]) from None
        return np.asarray(vectors[row])

    def _built(self, documents: int, flat_up_to: int) -> tuple[Any, str]:
        dimensions = self._embedder.dimensions
        index: Any = faiss.IndexFlatIP(dimensions)
        kind = "flat"
        if documents > flat_up_to:
            cells = round(4 * documents**0.5)
            index = faiss.index_factory(dimensions, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
            index.nprobe = max(cells // 16, 16)
            index.train(self._sample(documents, min(cells * _SAMPLES_A_CELL, documents)))
            kind = f"{cells} cells, {index.nprobe} looked into"
        for file in self._files:
            index.add(self._read(file))

        return index, kind

    def _sample(self, documents: int, wanted: int) -> Vectors:
        chosen = np.sort(np.random.default_rng(_SEED).choice(documents, wanted, replace=False))
        parts = chosen // self._documents_a_part
        samples: list[Vectors] = []
        for part in np.unique(parts):
            rows = chosen[parts == part] % self._documents_a_part
            samples.append(self._read(self._files[part])[rows])
        return np.concatenate(samples)

    def _read(self, file: Path) -> Vectors:
        try:
            return np.fromfile(file, np.float32).reshape(-1, self._embedder.dimensions)
        except (OSError, ValueError):
            raise _no_vectors(file) from None


def _no_vectors(file: Path) -> DataError:
    return DataError(f"{file}: it holds no vectors; remove it and its note to make them again.")
