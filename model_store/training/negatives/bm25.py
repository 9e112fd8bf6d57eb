"""BM25 over a corpus of texts, by the bm25s library.

Depends on words, not on vectors or images: a document without a text is never found, and a query
without one finds no document. The index is in memory, about 8 bytes for each distinct word of each
document. Invariant: a candidate shares a word with the query.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt
from bm25s.tokenization import Tokenizer

from model_store.training.data.corpus import Corpus
from model_store.training.data.identity import content_key
from model_store.training.data.rows import DataError, Side
from model_store.training.negatives.retrievers import Found, Query, Vectors, in_order

K1, B = 1.5, 0.75


class Bm25:
    """A retriever by words (Lucene's form of BM25)."""

    bin_width = 1.0

    def __init__(self, corpus: Corpus) -> None:
        """Index every text; raises `DataError` where no document has a word."""
        self._corpus = corpus
        self._words = Tokenizer(stopwords="en")
        hashes, texts = array("Q"), _Texts(corpus)
        stream = texts.read(hashes)
        ids = list(self._words.streaming_tokenize(stream, update_vocab=True, allow_empty=False))
        if not any(ids):
            raise DataError(
                f"{corpus.path}: no document has a word, and BM25 reads words alone; "
                "--hard 0 mines random negatives, --retriever gme reads images."
            )

        self.described: dict[str, Any] = {
            "retriever": "bm25",
            "k1": K1,
            "b": B,
            "bm25s": bm25s.__version__,
            "documents": len(corpus),
            "documents_without_text": texts.missing,
        }
        self._index = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._index.index((ids, self._words.get_vocab_dict()), show_progress=False)
        self._hashes, self._numbers = _sorted(hashes)

    def search(self, queries: Sequence[Query], most: int) -> list[Found]:
        """As `Retriever.search`."""
        return [_best(self._scores(query), most) for query in queries]

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
        text = query.side.text or ""
        (ids,) = self._words.streaming_tokenize([text], update_vocab=False, allow_empty=False)
        if not ids:
            return np.zeros(len(self._corpus), np.float32)

        scores: Vectors = self._index.get_scores_from_ids(ids)
        return scores

    def _find(self, side: Side) -> int | None:
        """Number of the first document with a side's text; None where there is none."""
        if side.text is None:
            return None

        wanted = np.uint64(_hash(side))
        index = int(np.searchsorted(self._hashes, wanted))
        if index == len(self._hashes) or self._hashes[index] != wanted:
            return None

        return int(self._numbers[index])


def _best(scores: Vectors, most: int) -> Found:
    """The best documents that share a word with the query; of equal scores, the first numbers."""
    numbers = np.flatnonzero(scores > 0)
    if len(numbers) > most:
        least = np.partition(scores[numbers], -most)[-most]
        numbers = numbers[scores[numbers] >= least]
    found = in_order(numbers, scores[numbers])
    return Found(found.numbers[:most], found.scores[:most])


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
