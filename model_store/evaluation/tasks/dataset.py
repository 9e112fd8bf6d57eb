"""A dataset to evaluate a reranker on: queries, documents, and judgements of relevance.

Does not depend on layouts of files, models or services. Invariant: every judged query is one of the
queries, and every judged document one of the documents, but for the `missing_documents`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class TaskUnusable(Exception):
    """A task that cannot be evaluated; its text is one sentence, with file and line where there are
    some."""


@dataclass(frozen=True, slots=True)
class Item:
    """A query or a document: a text, an encoded image, or both, with the image before the text."""

    id: str
    text: str | None
    image: bytes | None


class Items(Protocol):
    """Queries or documents by id, in the order of their dataset.

    An item is read, and its image with it, when it is asked for.
    """

    @property
    def ids(self) -> Sequence[str]:
        """All ids, each once."""
        ...

    def __len__(self) -> int: ...

    def __contains__(self, item_id: object) -> bool: ...

    def __getitem__(self, item_id: str) -> Item:
        """Raises `TaskUnusable` where the item cannot be read, such as an image that is missing."""
        ...

    def text(self, item_id: str) -> str | None:
        """The text of an item, without its image being read. Raises `TaskUnusable`."""
        ...


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset: a row of a benchmark's table, or one of the parts whose mean is a row.

    `judgements` are grades by query and document, above 0 where the document is relevant; documents
    that nobody has judged count as irrelevant. `candidates` are the documents of the dataset's own
    first stage by query, best first; None where it has none. `digest` changes with everything that
    decides a score of a reranker: texts, images, candidates and judgements, or the revision of the
    data that they come from.
    """

    name: str
    queries: Items
    documents: Items
    judgements: Mapping[str, Mapping[str, int]]
    digest: str
    instruction: str | None = None
    """The instruction of the queries; None for the model's own."""
    candidates: Mapping[str, Sequence[str]] | None = None
    excludes_the_query: bool = False
    """A document with the id of the query is no candidate (ArguAna and some more of BEIR)."""
    instructions: Mapping[str, str] | None = None
    """Instructions of single queries, in place of `instruction`."""
    excluded: Mapping[str, Collection[str]] | None = None
    """Documents that are no candidates of a query, such as those that BRIGHT excludes."""
    missing_documents: int = 0
    """Judged documents that are not among the documents, which count as missed: some data of mteb
    is without documents that it judges."""

    def instruction_of(self, query: str) -> str | None:
        """The instruction of a query; None for the model's own."""
        return (self.instructions or {}).get(query, self.instruction)

    def allows(self, query: str, document: str) -> bool:
        """True unless the dataset excludes a document from the candidates of a query."""
        if self.excludes_the_query and document == query:
            return False
        return self.excluded is None or document not in self.excluded.get(query, ())


class DatasetSource(Protocol):
    """A dataset that can be loaded."""

    @property
    def name(self) -> str:
        """The name of the dataset."""
        ...

    def load(self) -> Dataset:
        """Read everything but the items. Raises `TaskUnusable` where data is missing or wrong."""
        ...
