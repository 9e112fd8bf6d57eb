"""A corpus as vectors: made in parts, and kept in files.

Depends on numbers and files, not on a model or an index. Invariant: the vectors of a folder are of
one corpus and one model, and part p begins at document p * `documents_a_part`, so that several
processes may make them and an interrupted one continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model_store.errors import DataError
from model_store.output_files import output_file
from model_store.parts import Parts
from model_store.retrieval.embedder import Content, Embedder
from model_store.retrieval.found import Vectors

DOCUMENTS_A_PART = 4_096
BATCH = 32


class Documents(Protocol):
    """The documents of a corpus, by number from 0."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON that identifies the corpus: other documents have another."""
        ...

    def __len__(self) -> int: ...

    def contents(self, numbers: range) -> tuple[Sequence[Content], Sequence[str]]:
        """Some documents, and the names of their places for errors; raises `DataError`."""
        ...


def parts_of(documents: int, documents_a_part: int = DOCUMENTS_A_PART) -> int:
    """Number of parts of so many documents' vectors."""
    return -(-documents // documents_a_part)


def embed_corpus(
    corpus: Documents,
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


def _embedded(corpus: Documents, embedder: Embedder, numbers: range) -> Vectors:
    contents, locations = corpus.contents(numbers)
    return checked(embedder.documents(contents, locations), len(numbers), embedder)


def checked(vectors: Vectors, rows: int, embedder: Embedder) -> Vectors:
    """The same vectors; raises `DataError` where their shape or a value breaks the protocol."""
    if vectors.shape != (rows, embedder.dimensions) or not np.isfinite(vectors).all():
        raise DataError(
            f"The model gives vectors that are not finite, or not {embedder.dimensions} long:"
            f" {embedder.described}."
        )

    return np.ascontiguousarray(vectors, np.float32)


def _work(corpus: Documents, embedder: Embedder, folder: Path) -> Parts:
    described = {
        "corpus": corpus.identity,
        "documents": len(corpus),
        "dimensions": embedder.dimensions,
    }
    return Parts(folder, described | {"model": embedder.described})


class VectorFiles:
    """The vectors of a corpus, in the files that `embed_corpus` made."""

    def __init__(
        self,
        corpus: Documents,
        embedder: Embedder,
        folder: Path,
        *,
        documents_a_part: int = DOCUMENTS_A_PART,
    ) -> None:
        """Takes the same `documents_a_part` as they were made with; raises `DataError` where some
        are missing."""
        work = _work(corpus, embedder, folder)
        parts = parts_of(len(corpus), documents_a_part)
        for _ in work.notes(parts):
            pass
        self.documents_a_part = documents_a_part
        self._dimensions = embedder.dimensions
        self._files = [work.path(part, ".f32") for part in range(parts)]

    def __iter__(self) -> Iterator[Vectors]:
        """Each part as `[documents, dimensions]`, in order."""
        for part in range(len(self._files)):
            yield self.part(part)

    def part(self, part: int) -> Vectors:
        """`[documents, dimensions]` of a part, in memory; raises `DataError`."""
        file = self._files[part]
        try:
            return np.fromfile(file, np.float32).reshape(-1, self._dimensions)
        except (OSError, ValueError):
            raise _no_vectors(file) from None

    def row(self, number: int) -> Vectors:
        """`[dimensions]` of a document, read alone; raises `DataError`."""
        part, row = divmod(number, self.documents_a_part)
        file = self._files[part]
        try:
            vectors = np.memmap(file, np.float32, mode="r").reshape(-1, self._dimensions)
        except (OSError, ValueError):
            raise _no_vectors(file) from None
        return np.asarray(vectors[row])


def _no_vectors(file: Path) -> DataError:
    return DataError(f"{file}: it holds no vectors; remove it and its note to make them again.")
