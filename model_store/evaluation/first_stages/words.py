"""BM25 over the texts of a dataset.

Depends on words alone: an image is never found, and finds nothing. Invariant: a candidate shares a
word with its query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from model_store.evaluation.first_stages.search import Ranking
from model_store.evaluation.tasks.dataset import Dataset, TaskUnusable
from model_store.retrieval.words import NoWords, WordIndex

QUERIES_A_PART = 512
_TOLD_EVERY = 1_000
"""Documents between two calls of `progress`."""
_HELP = "--first-stage gme reads images"


class WordSearch:
    """Finds documents by BM25."""

    def __init__(
        self, dataset: Dataset, queries: Sequence[str], progress: Callable[[str, int], None]
    ) -> None:
        """Index the documents; raises `TaskUnusable` where no query or no document has a word."""
        self._dataset = dataset
        without = sum(not self._words_of(query) for query in queries)
        if queries and without == len(queries):
            raise TaskUnusable(
                f"{dataset.name}: no query has a text, and BM25 reads words alone; {_HELP}."
            )

        texts = _Texts(dataset, progress)
        try:
            self._index = WordIndex(texts)
        except NoWords:
            raise TaskUnusable(
                f"{dataset.name}: no document has a text, and BM25 reads words alone; {_HELP}."
            ) from None
        self.notice = _notice(dataset, texts.missing, without, len(queries))

    def find(self, queries: Sequence[str], most: int) -> list[Ranking]:
        """As `Search.find`."""
        return [self._index.search(self._words_of(query), most).numbers for query in queries]

    def _words_of(self, query: str) -> str:
        return self._dataset.queries.text(query) or ""


class _Texts:
    """The texts of the documents, empty for those without one, which `missing` counts."""

    def __init__(self, dataset: Dataset, progress: Callable[[str, int], None]) -> None:
        self._dataset, self._progress = dataset, progress
        self.missing = 0

    def __iter__(self) -> Iterator[str]:
        documents = self._dataset.documents
        told = 0
        for number, document in enumerate(documents.ids, 1):
            text = documents.text(document)
            self.missing += text is None
            yield text or ""
            if number - told == _TOLD_EVERY or number == len(documents):
                self._progress("documents", number - told)
                told = number


def _notice(dataset: Dataset, documents: int, without: int, queries: int) -> str:
    """The sentence on documents and queries without a text."""
    shares: list[str] = []
    if documents:
        shares.append(_share(documents, len(dataset.documents), "documents"))
    if without:
        shares.append(_share(without, queries, "queries"))
    if not shares:
        return ""
    return (
        f"{dataset.name}: {' and '.join(shares)} have no text, and BM25 reads words alone; {_HELP}."
    )


def _share(part: int, whole: int, name: str) -> str:
    return f"{part:,} of {whole:,} {name} ({part / whole:.1%})"
