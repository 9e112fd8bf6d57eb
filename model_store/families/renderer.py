"""Rendering of one question's documents within a budget of tokens.

The half of the prompt that all documents share is encoded once, and cut once for each limit.
Depends on rows of text and a budget, not on a template. Invariant: a prompt has at most
`max_tokens` ids; only text is cut, the document's first, then the query's, and the instruction
never.
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
    """A question's rows: the half of the prompt that all documents share, that half without the
    query, and the other half for each document."""

    row: Row
    without_query: Row
    document_row: Callable[[Item], Row]
    document_first: bool = False
    """True where a prompt begins with the document's half."""
    max_tokens: int | None = None
    """The limit of the question's half beside any document, shorter ones included."""


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
        self._cut_questions: dict[int, Segment | None] = {}

    def prompts(self, documents: Sequence[Item]) -> list[Prompt | PairTooLong]:
        """One prompt for each document, in order. A pair that does not fit is cut, or refused.

        No document is read where none can fit beside this instruction or this query.
        """
        if self._too_long:
            return [PairTooLong(self._max_tokens, self._too_long)] * len(documents)

        rows = [self._question.document_row(document) for document in documents]
        halves = self._encoder.segments(rows)
        return [self._prompt(row, half) for row, half in zip(rows, halves, strict=True)]

    @cached_property
    def _uncut(self) -> Segment | None:
        """The uncut half of the question; None where it has more than `max_tokens` ids."""
        (uncut,) = self._encoder.segments([self._question.row])
        return uncut

    @cached_property
    def _shared(self) -> Segment | None:
        """The half of the question, cut where it has a limit of its own."""
        limit = self._question.max_tokens
        if limit is None or not self._truncate or _length(self._uncut) <= limit:
            return self._uncut
        return self._question_within(limit)

    @cached_property
    def _too_long(self) -> TooLongPart | None:
        """The part of the question that alone leaves no room for the shortest document."""
        (shortest,) = self._encoder.segments([self._question.document_row(())])
        room = self._max_tokens - _length(shortest)
        if _length(self._shared) <= room:
            return None

        (bare,) = self._encoder.segments([self._question.without_query])
        if _length(bare) > room:
            return "instruction"
        if not self._truncate or _length(self._question_within(0)) > room:
            return "query"
        return None

    def _prompt(self, row: Row, document: Segment | None) -> Prompt | PairTooLong:
        if self._shared and document and self._fit(self._shared, document):
            cut = self._shared is not self._uncut
            return self._joined(self._shared, document, truncated=cut)

        shortened = self._shorten(row, document) if self._truncate else None
        return shortened or PairTooLong(self._max_tokens, "pair")

    def _shorten(self, row: Row, document: Segment | None) -> Prompt | None:
        """The pair with less text; None where it cannot fit.

        Cuts the document down to its share of the budget, then the query, then the document to the
        rest.
        """
        limit = self._max_tokens
        room = max(limit - _length(self._shared), self._floor)
        if document is None or len(document.ids) > room:
            document = self._encoder.cut(row, room)

        shared = self._shared
        if not self._fit(shared, document):
            shared = self._question_within(limit - max(_length(document), self._floor))
        if shared and not self._fit(shared, document):
            document = self._encoder.cut(row, limit - len(shared.ids))
        if shared and document and self._fit(shared, document):
            return self._joined(shared, document, truncated=True)
        return None

    def _joined(self, shared: Segment, document: Segment, *, truncated: bool) -> Prompt:
        if self._question.document_first:
            return Prompt(document, shared, truncated)
        return Prompt(shared, document, truncated)

    def _question_within(self, limit: int) -> Segment | None:
        """The half of the question with its query cut, to at most `limit` ids if possible."""
        if limit not in self._cut_questions:
            self._cut_questions[limit] = self._encoder.cut(self._question.row, limit)
        return self._cut_questions[limit]

    def _fit(self, shared: Segment | None, document: Segment | None) -> bool:
        return _length(shared) + _length(document) <= self._max_tokens


def _length(segment: Segment | None) -> int:
    """A segment's tokens; more than any limit for a text that was not read to its end."""
    return len(segment.ids) if segment else _MORE_THAN_ANY_LIMIT
