"""A retriever by vectors, searched with FAISS.

Depends on numbers, not on a model. Invariant: the scores of a search are inner products of the
vectors in the files, whichever index finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from model_store.retrieval.embedder import Embedder, Query
from model_store.retrieval.found import Found, Vectors, in_order
from model_store.retrieval.vectors import DOCUMENTS_A_PART, Documents, VectorFiles, checked
from model_store.training.data.rows import Side

FLAT_UP_TO = 1_000_000
"""Larger corpora are searched in cells (IVF): exact search reads every vector for every query."""
_SAMPLES_A_CELL = 64
_SEED = 1234


class VectorSearch:
    """A retriever by inner product: exact up to `flat_up_to` documents, beyond that in cells of
    FAISS."""

    bin_width = 0.05

    def __init__(
        self,
        corpus: Documents,
        embedder: Embedder,
        folder: Path,
        *,
        flat_up_to: int = FLAT_UP_TO,
        documents_a_part: int = DOCUMENTS_A_PART,
    ) -> None:
        """Read the vectors that `embed_corpus` made with the same `documents_a_part`; raises
        `DataError` where some are missing."""
        self._files = VectorFiles(corpus, embedder, folder, documents_a_part=documents_a_part)
        self._embedder = embedder
        self._last: tuple[Query, Vectors] | None = None
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

        rows = np.stack([self._files.row(number) for number in numbers])
        return [float(score) for score in rows @ self._vector(query)]

    def _vector(self, query: Query) -> Vectors:
        """The query's vector; that of the latest query is kept."""
        if self._last is None or self._last[0] != query:
            self._last = (query, checked(self._embedder.queries([query]), 1, self._embedder)[0])
        return self._last[1]

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
        for vectors in self._files:
            index.add(vectors)

        return index, kind

    def _sample(self, documents: int, wanted: int) -> Vectors:
        chosen = np.sort(np.random.default_rng(_SEED).choice(documents, wanted, replace=False))
        parts = chosen // self._files.documents_a_part
        samples: list[Vectors] = []
        for part in np.unique(parts):
            rows = chosen[parts == part] % self._files.documents_a_part
            samples.append(self._files.part(int(part))[rows])
        return np.concatenate(samples)
