"""BM25 over a corpus of texts, as a retriever for mining.

Depends on words, not on vectors or images: a document without a text is never found, and a query
without one finds no document. Invariant: a candidate shares a word with the query.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.errors import DataError
from model_store.retrieval.embedder import Query
from model_store.retrieval.found import Found, Vectors
from model_store.retrieval.words import NoWords, WordIndex
from model_store.training.data.corpus import Corpus
from model_store.training.data.identity import content_key
from model_store.training.data.rows import Side


class Bm25:
    """A retriever by words."""

    bin_width = 1.0

    def __init__(self, corpus: Corpus) -> None:
        """Index every text; raises `DataError` where no document has a word."""
        self._corpus = corpus
        hashes, texts = array("Q"), _Texts(corpus)
        try:
            self._index = WordIndex(texts.read(hashes))
        except NoWords:
            raise DataError(
                f"{corpus.path}: no document has a word, and BM25 reads words alone; "
                "--hard 0 mines random negatives, --retriever gme reads images."
            ) from None

        self.described: dict[str, Any] = {
            "retriever": "bm25",
            **WordIndex.described,
            "documents": len(corpus),
            "documents_without_text": texts.missing,
        }
        self._hashes, self._numbers = _sorted(hashes)

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """As `Retriever.search`."""
        return [self._index.search(query.content.text or "", most) for query in queries]

    def score(self, query: Query, sides: Sequence[Side]) -> list[float | None]:
        """As `Retriever.score`; a side that is not in the corpus has none."""
        scores = self._scores(query)
        numbers = [self._find(side) for side in sides]
        return [None if number is None else float(scores[number]) for number in numbers]

    def score_documents(self, query: Query, numbers: Sequence[int]) -> list[float | None]:
        """As `Retriever.score_documents`; a document that shares no word with the query has
        none."""
        scores = self._scores(query)
        return [float(scores[number]) if scores[number] > 0 else None for number in numbers]

    def _scores(self, query: Query) -> Vectors:
        return self._index.scores(query.content.text or "")

    def _find(self, side: Side) -> int | None:
        """Number of the first document with a side's text; None where there is none."""
        if side.text is None:
            return None

        wanted = np.uint64(_hash(side))
        index = int(np.searchsorted(self._hashes, wanted))
        if index == len(self._hashes) or self._hashes[index] != wanted:
            return None

        return int(self._numbers[index])


def _sorted(hashes: array[int]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    values = np.frombuffer(hashes, np.uint64)
    order = np.argsort(values, kind="stable")
    return values[order], order


class _Texts:
    """The texts of a corpus, empty for documents without one, which `missing` counts."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.missing = 0

    def read(self, hashes: array[int]) -> Iterator[str]:
        """Every text in order; its hash is appended to `hashes`."""
        for document in self._corpus:
            hashes.append(_hash(document.side))
            if document.side.text is None:
                self.missing += 1
            yield document.side.text or ""


def _hash(side: Side) -> int:
    """8 bytes of the text's key. Two of 10 million texts share one with probability 3e-6, which
    would give one of them a wrong score."""
    return int.from_bytes(content_key(Side(side.text, None))[:8], "big")
