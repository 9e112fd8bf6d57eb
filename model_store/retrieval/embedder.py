"""The protocol of a model that turns queries and documents into vectors.

Depends on no library. Invariant: vectors have length 1, and their inner product is the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from model_store.retrieval.found import Vectors


class Content(Protocol):
    """A query or a document: a text, an image, or both, with the image before the text."""

    @property
    def text(self) -> str | None:
        """The text; None for an image alone."""
        ...

    @property
    def image(self) -> Path | bytes | None:
        """A file, or the bytes of one; None for a text alone."""
        ...


@dataclass(frozen=True, slots=True)
class Query:
    """A query for a search; `location` names it in errors, such as `file:line` of its row."""

    instruction: str | None
    content: Content
    location: str


class Embedder(Protocol):
    """Turns contents into vectors of length 1, whose inner product is the score."""

    described: dict[str, Any]
    """Settings and versions that decide its vectors, as JSON."""
    dimensions: int

    def queries(self, queries: Sequence[Query]) -> Vectors:
        """`[queries, dimensions]`; raises `DataError` for a query it cannot read."""
        ...

    def documents(self, contents: Sequence[Content], locations: Sequence[str]) -> Vectors:
        """`[contents, dimensions]`; raises `DataError`, which names the location of a content that
        it cannot read."""
        ...
