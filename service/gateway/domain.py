"""The types that the rooms of the gateway pass to each other: a query, the context that its pairs
are scored in, and the outcome of each pair.

Holds data alone. Invariant: of the gateway it imports nothing but the type of a content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from service.errors import RerankError
from service.gateway.media.content import Content, framed, identity
from service.items import Item
from service.wire import Scored, WorkerInfo

_SHORT_DOCUMENTS = 256
_SHORT_CHARACTERS = 128 * 2**10


@dataclass(frozen=True, slots=True)
class RerankQuery:
    """A request as every dialect reads it.

    A document that could not be read is replaced by its error, and so is the document of a query of
    its own that could not be read.
    """

    query: Item | Sequence[Item | RerankError]
    """One query for all documents, or one for each."""
    documents: Sequence[Item | RerankError]
    model: str | None = None
    instruction: str | None = None
    top_n: int | None = None
    min_score: float | None = None
    min_probability: bool = False
    """True where `min_score` is a probability."""
    return_documents: bool = False
    truncate: bool = True
    skip_errors: bool = False
    timeout_ms: int | None = None
    cache: Literal["use", "bypass", "refresh"] = "use"
    warnings: Sequence[str] = ()
    """Sentences of the answer about fields that had no effect."""
    raw_scores: bool = False
    """Scores are raw, in the answer of a dialect that has one score a result."""

    @property
    def paired(self) -> bool:
        """True if each document has a query of its own."""
        return not isinstance(self.query, Item)

    def is_short(self) -> bool:
        """True for texts alone, so few and so short that to read them takes less time than to hand
        them to a thread."""
        if len(self.documents) > _SHORT_DOCUMENTS:
            return False

        characters = len(self.instruction or "")
        for item in self.items():
            if not item.is_text:
                return False
            characters += len(item.text or "")
        return characters <= _SHORT_CHARACTERS

    def items(self) -> Iterator[Item]:
        """Iterate over the items that could be read, queries first."""
        queries = (self.query,) if isinstance(self.query, Item) else self.query
        for item in (*queries, *self.documents):
            if isinstance(item, Item):
                yield item

    def pairs(self) -> Iterator[tuple[int, Item, Item]]:
        """Iterate over the pairs that could be read: index, query, document."""
        if isinstance(self.query, Item):
            for index, document in enumerate(self.documents):
                if isinstance(document, Item):
                    yield index, self.query, document
            return

        for index, (query, document) in enumerate(zip(self.query, self.documents, strict=True)):
            if isinstance(query, Item) and isinstance(document, Item):
                yield index, query, document


class ScoredDocument(msgspec.Struct, frozen=True):
    """A document's index in the request and its score; `cached` if the score was known before, or
    was computed for another request. `stage` is that of a cascade, from 1; 0 for any other model.
    """

    index: int
    score: Scored
    cached: bool
    stage: int = 0


@dataclass(frozen=True, slots=True)
class RerankResult:
    """A result as every dialect writes it: `ranked` best first, `errors` by rising index.

    Of a cascade, `stages` are the results of its stages by number, and `warnings` sentences of the
    answer. `query` and `contents` are what was ranked: the query, where it is one for all
    documents, and the documents by index.
    """

    model: WorkerInfo
    ranked: list[ScoredDocument]
    errors: list[tuple[int, RerankError]]
    stages: Mapping[int, RerankResult] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    query: Content = ()
    contents: Mapping[int, Content] = field(default_factory=dict)

    def passes(self) -> tuple[RerankResult, ...]:
        """The results whose pairs were scored for this one: those of the stages, or this one."""
        return tuple(self.stages.values()) or (self,)


Documents = Mapping[bytes, Content]
"""Contents of documents, each by the key of its pair."""

PairOutcome = Scored | RerankError


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """Everything that a pair's score depends on except its document.

    Requests of different `cache_salt` share no cached score, and no prefix in a worker's cache.
    """

    model: WorkerInfo
    instruction: str
    query: Content
    truncate: bool
    cache_salt: str = ""

    def prefix_key(self) -> bytes:
        """A hash that is equal for contexts whose prompts begin with the same tokens."""
        texts = (self.model.model, self.cache_salt, self.instruction)
        fields = [text.encode() for text in texts]

        return hashlib.sha256(framed(*fields, identity(self.query))).digest()

    def document_keys(self, documents: Iterable[Content]) -> list[int]:
        """A hash of 64 bits for each document, equal where prompts that begin with the document
        begin with the same tokens."""
        fields = (self.model.model.encode(), self.cache_salt.encode())
        key = hashlib.sha256(framed(*fields)).digest()

        keys: list[int] = []
        for document in documents:
            digest = hashlib.blake2b(identity(document), key=key, digest_size=8).digest()
            keys.append(int.from_bytes(digest))
        return keys
