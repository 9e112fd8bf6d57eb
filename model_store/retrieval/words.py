"""BM25 over texts, by the bm25s library.

Depends on words, not on vectors or images: a text without words is never found, and a query without
one finds no document. The index is in memory, 8 bytes for each distinct word of each document, and
three times as much while it is made. Invariant: a document that is found shares a word with the
query.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import bm25s
import numpy as np
from bm25s.tokenization import Tokenized, Tokenizer

from model_store.retrieval.found import Found, Vectors, best

K1, B = 1.5, 0.75

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs each step, at the level it sets


class NoWords(Exception):
    """Texts among which none has a word."""


class WordIndex:
    """Lucene's form of BM25 over texts, which have numbers from 0."""

    described: dict[str, Any] = {"k1": K1, "b": B, "bm25s": bm25s.__version__}  # noqa: RUF012
    """Settings and versions that decide its scores, as JSON."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Index every text; raises `NoWords`."""
        self._tokenizer = Tokenizer(stopwords="en")
        documents = _Documents()
        for ids in self._tokenizer.streaming_tokenize(texts, update_vocab=True, allow_empty=False):
            documents.append(ids)
        self._count = len(documents)
        if not documents.words:
            raise NoWords

        self._index = bm25s.BM25(method="lucene", k1=K1, b=B)
        words = Tokenized(ids=documents, vocab=self._tokenizer.get_vocab_dict())
        self._index.index(words, show_progress=False)

    def __len__(self) -> int:
        return self._count

    def scores(self, text: str) -> Vectors:
        """The score of each text for a query; 0 for one that shares no word with it."""
        (ids,) = self._tokenizer.streaming_tokenize([text], update_vocab=False, allow_empty=False)
        if not ids:
            return np.zeros(self._count, np.float32)

        scores: Vectors = self._index.get_scores_from_ids(ids)
        return scores

    def search(self, text: str, most: int) -> Found:
        """The best texts that share a word with a query; of equal scores, the first numbers."""
        scores = self.scores(text)
        numbers = np.flatnonzero(scores > 0)
        return best(numbers, scores[numbers], most)


class _Documents(Sequence[list[int]]):
    """The word ids of each text, 4 bytes each."""

    def __init__(self) -> None:
        self._ids, self._ends = array("I"), array("Q", [0])

    @property
    def words(self) -> int:
        return len(self._ids)

    def append(self, ids: list[int]) -> None:
        self._ids.extend(ids)
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> list[int]:  # type: ignore[override]  # never a slice
        return self._ids[self._ends[number] : self._ends[number + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(len(self)):
            yield self[number]
