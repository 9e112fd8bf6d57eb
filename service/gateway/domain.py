"""What the rooms of the gateway say to each other: a query, its context, and what became of its
pairs.

Knows types alone. Invariant: it imports nothing of the gateway but what a content is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.api import Item
from service.errors import RerankError
from service.gateway.media.content import Content, framed, identity
from service.wire import Scored, WorkerInfo


@dataclass(frozen=True, slots=True)
class RerankQuery:
    """What every dialect reads a request into. A document that could not be read stands as its
    error."""

    query: Item
    documents: Sequence[Item | RerankError]
    model: str | None = None
    instruction: str | None = None
    top_n: int | None = None
    min_score: float | None = None
    return_documents: bool = False
    truncate: bool = True
    skip_errors: bool = False
    timeout_ms: int | None = None
    cache: Literal["use", "bypass", "refresh"] = "use"
    warnings: Sequence[str] = ()
    """What the answer says of fields that had no effect."""


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """A scored document: its index in the request, and whether its score was known, or under way
    for another request."""

    index: int
    score: Scored
    cached: bool


@dataclass(frozen=True, slots=True)
class RerankResult:
    """What every dialect writes its answer from: `ranked` best first, `errors` by rising index."""

    model: WorkerInfo
    ranked: list[ScoredDocument]
    errors: list[tuple[int, RerankError]]


PairOutcome = Scored | RerankError


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """All that a pair's score depends on but its document; `cache_salt` keeps those apart who must
    share no cache."""

    model: WorkerInfo
    instruction: str
    query: Content
    truncate: bool
    cache_salt: str = ""

    def prefix_key(self) -> bytes:
        """Equal for questions whose pairs begin alike."""
        texts = (self.model.model, self.cache_salt, self.instruction)
        return hashlib.sha256(
            framed(*(text.encode() for text in texts), identity(self.query))
        ).digest()
