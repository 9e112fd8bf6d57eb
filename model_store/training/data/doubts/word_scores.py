"""BM25's scores of rows' own documents.

Depends on words, not on vectors or images. Invariant: words are weighed by all documents of the
given rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from model_store.retrieval.words import NoWords, WordIndex
from model_store.training.data.doubts.scores import Rows


class WordScorer:
    """BM25 over all documents of some rows."""

    name = "BM25"

    def __init__(self, rows: Rows) -> None:
        self._rows, self._starts = rows, [0]
        for _, example in rows:
            self._starts.append(self._starts[-1] + len(example.documents))
        try:
            self._index: WordIndex | None = WordIndex(self._texts())
        except NoWords:
            self._index = None

    def scores(self, number: int) -> list[float | None] | None:
        """As `Scorer.scores`; a document without a text, or with an image, has none.

        A query that has no word in common with any positive says nothing.
        """
        _, example = self._rows[number]
        if self._index is None or example.query.text is None or example.query.image is not None:
            return None
        begin, end = self._starts[number], self._starts[number + 1]
        all_scores = self._index.scores(example.query.text)[begin:end].tolist()
        found = [
            None if side.text is None or side.image is not None else score
            for side, score in zip(example.documents, all_scores, strict=True)
        ]
        positives = found[: len(example.positives)]
        return found if any(score is not None and score > 0 for score in positives) else None

    def _texts(self) -> Iterator[str]:
        for _, example in self._rows:
            for side in example.documents:
                yield side.text or ""
