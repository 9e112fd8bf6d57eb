"""Rendering of one question's documents within a budget of tokens.

The prefix, which all documents share, is encoded once, and cut once for each limit. Depends on rows
of text and a budget, not on a template. Invariant: a prompt has at most `max_tokens` ids; only text
is cut, the document's first, then the query's, and the instruction never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from model_store.families.prompt import Item, PairTooLong, Prompt, Segment, TooLongPart
from model_store.families.rows import Row, RowEncoder

_DOCUMENT_SHARE = 4
"""A document keeps up to this fraction of the budget beside a long query."""
_MORE_THAN_ANY_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Question:
    """A question's rows: its prefix, the prefix without the query, and a suffix per document."""

    prefix: Row
    without_query: Row
    suffix: Callable[[Item], Row]


class Renderer:
    """Renders the documents of one question. It serves one thread at a time."""

    def __init__(
        self,
        encoder: RowEncoder,
        question: Question,
        max_tokens: int,
        *,
        truncate: bool,
    ) -> None:
        self._encoder, self._question = encoder, question
        self._max_tokens, self._truncate = max_tokens, truncate
        self._floor = max_tokens // _DOCUMENT_SHARE
        self._cut_prefixes: dict[int, Segment | None] = {}

    def prompts(self, documents: Sequence[Item]) -> list[Prompt | PairTooLong]:
        """One prompt for each document, in order. A pair that does not fit is cut, or refused.

        No document is read where none can fit beside this instruction or this query.
        """
        if self._too_long:
            return [PairTooLong(self._max_tokens, self._too_long)] * len(documents)

        rows = [self._question.suffix(document) for document in documents]
        suffixes = self._encoder.segments(rows)
        return [self._prompt(row, suffix) for row, suffix in zip(rows, suffixes, strict=True)]

    @cached_property
    def _prefix(self) -> Segment | None:
        """The uncut prefix; None where it has more than `max_tokens` ids."""
        (prefix,) = self._encoder.segments([self._question.prefix])
        return prefix

    @cached_property
    def _too_long(self) -> TooLongPart | None:
        """The part of the question that alone leaves no room for the shortest document."""
        (shortest,) = self._encoder.segments([self._question.suffix(())])
        room = self._max_tokens - _length(shortest)
        if _length(self._prefix) <= room:
            return None

        (bare,) = self._encoder.segments([self._question.without_query])
        if _length(bare) > room:
            return "instruction"
        if not self._truncate or _length(self._prefix_within(0)) > room:
            return "query"
        return None

    def _prompt(self, row: Row, suffix: Segment | None) -> Prompt | PairTooLong:
        if self._prefix and suffix and self._fit(self._prefix, suffix):
            return Prompt(self._prefix, suffix, truncated=False)

        shortened = self._shorten(row, suffix) if self._truncate else None
        return shortened or PairTooLong(self._max_tokens, "pair")

    def _shorten(self, row: Row, suffix: Segment | None) -> Prompt | None:
        """The pair with less text; None where it cannot fit.

        Cuts the document down to its share of the budget, then the query, then the document to the
        rest.
        """
        limit = self._max_tokens
        room = max(limit - _length(self._prefix), self._floor)
        if suffix is None or len(suffix.ids) > room:
            suffix = self._encoder.cut(row, room)

        prefix = self._prefix
        if not self._fit(prefix, suffix):
            prefix = self._prefix_within(limit - max(_length(suffix), self._floor))
        if prefix and not self._fit(prefix, suffix):
            suffix = self._encoder.cut(row, limit - len(prefix.ids))
        if prefix and suffix and self._fit(prefix, suffix):
            return Prompt(prefix, suffix, truncated=True)
        return None

    def _prefix_within(self, limit: int) -> Segment | None:
        """The prefix with its query cut, to at most `limit` ids if possible."""
        if limit not in self._cut_prefixes:
            self._cut_prefixes[limit] = self._encoder.cut(self._question.prefix, limit)
        return self._cut_prefixes[limit]

    def _fit(self, prefix: Segment | None, suffix: Segment | None) -> bool:
        return _length(prefix) + _length(suffix) <= self._max_tokens


def _length(segment: Segment | None) -> int:
    """A segment's tokens; more than any limit for a text that was not read to its end."""
    return len(segment.ids) if segment else _MORE_THAN_ANY_LIMIT
