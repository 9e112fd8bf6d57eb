"""A corpus as vectors: made in parts, kept in files, searched with FAISS.

Knows numbers and files, no model. Invariant: the vectors of a folder are of one corpus and one
model, and part p holds documents p * `DOCUMENTS_A_PART` onwards, so that several processes may make
them and an interrupted one goes on.
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
"""More documents than this are searched in cells (IVF): exact search reads every vector for every
query."""
_SAMPLES_A_CELL = 64
_SEED = 1234


def parts_of(documents: int) -> int:
    """How many parts the vectors of so many documents have."""
    return -(-documents // DOCUMENTS_A_PART)


def embed_corpus(
    corpus: Corpus,
    embedder: Embedder,
    folder: Path,
    *,
    parts: Iterable[int] | None = None,
    progress: Callable[[int], None] = lambda documents: None,
) -> None:
    """Make the vectors that `folder` lacks, of `parts` or of all; `progress` is called with the
    documents of each part."""
    work = _work(corpus, embedder, folder)
    for part in range(parts_of(len(corpus))) if parts is None else parts:
        first = part * DOCUMENTS_A_PART
        last = min(first + DOCUMENTS_A_PART, len(corpus))
        if work.note(part) is None:
            vectors = np.concatenate(
                [
                    _embedded(corpus, embedder, range(at, min(at + BATCH, last)))
                    for at in range(first, last, BATCH)
                ]
            )
            with output_file(work.path(part, ".f32")) as write:
                write(vectors.tobytes())
            work.finish(part, {"documents": last - first})
        progress(last - first)


def _embedded(corpus: Corpus, embedder: Embedder, places: range) -> Vectors:
    documents = [corpus[place] for place in places]
    return checked(
        embedder.documents([d.side for d in documents], [d.location for d in documents]),
        len(documents),
        embedder,
    )


def checked(vectors: Vectors, rows: int, embedder: Embedder) -> Vectors:
    """The same vectors; raises `DataError` where they are not what an embedder promises."""
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
    """A retriever by inner product: exact up to `flat_up_to` documents, beyond that in FAISS's
    cells."""

    bin_width = 0.05

    def __init__(
        self, corpus: Corpus, embedder: Embedder, folder: Path, *, flat_up_to: int = FLAT_UP_TO
    ) -> None:
        """Read the vectors that `embed_corpus` made; raises `DataError` where some are missing."""
        work = _work(corpus, embedder, folder)
        for _ in work.notes(parts_of(len(corpus))):
            pass
        self._embedder = embedder
        self._last: tuple[Query, Vectors] | None = None
        self._files = [work.path(part, ".f32") for part in range(parts_of(len(corpus)))]
        self._index, kind = self._built(len(corpus), flat_up_to)
        self.described: dict[str, Any] = {
            "retriever": "vectors",
            "model": embedder.described,
            "index": kind,
        }
        self.described["faiss"] = faiss.__version__

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """As `Retriever.search`."""
        vectors = checked(self._embedder.queries(queries), len(queries), self._embedder)
        scores, places = self._index.search(vectors, most)
        # -1: no more
        return [
            in_order(row[row >= 0], at[row >= 0]) for row, at in zip(places, scores, strict=True)
        ]

    def score(self, query: Query, sides: Sequence[Side]) -> list[float | None]:
        """As `Retriever.score`: the sides are embedded anew, whether they are in the corpus or
        not."""
        vectors = checked(
            self._embedder.documents(sides, [query.place] * len(sides)), len(sides), self._embedder
        )
        return [float(score) for score in vectors @ self._vector(query)]

    def score_documents(self, query: Query, places: Sequence[int]) -> list[float | None]:
        """As `Retriever.score_documents`, from the vectors that were made."""
        rows = [self._row(place) for place in places]
        return [float(score) for score in np.stack(rows) @ self._vector(query)] if rows else []

    def _vector(self, query: Query) -> Vectors:
        """The query's vector; of the query that was last asked for, it is not made anew."""
        if self._last is None or self._last[0] != query:
            self._last = (query, checked(self._embedder.queries([query]), 1, self._embedder)[0])
        return self._last[1]

    def _row(self, place: int) -> Vectors:
        part, row = divmod(place, DOCUMENTS_A_PART)
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
        parts = chosen // DOCUMENTS_A_PART
        return np.concatenate(
            [
                self._read(self._files[part])[chosen[parts == part] % DOCUMENTS_A_PART]
                for part in np.unique(parts)
            ]
        )

    def _read(self, file: Path) -> Vectors:
        try:
            return np.fromfile(file, np.float32).reshape(-1, self._embedder.dimensions)
        except (OSError, ValueError):
            raise _no_vectors(file) from None


def _no_vectors(file: Path) -> DataError:
    return DataError(f"{file}: it holds no vectors; remove it and its note to make them again.")
