"""Pairs of a query and a document with their impressions, clicks, skips and grades, added up.

Does not depend on files. Clicks are biased: users click what is shown first, and what they do not
see has no clicks. A document above the last click was seen and passed over, which says that it is
worse than the clicked one (Joachims, 2002, "skip above"), and nothing of the documents below.
Invariant: equal contents are one query or one document, whatever request they came with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from model_store.errors import DataError
from model_store.training.data.feedback.answers import Answer
from model_store.training.data.feedback.contents import AnswerContents, Contents
from model_store.training.data.identity import content_key

MAX_PAIRS = 10_000_000
"""About 3 GB of memory."""
POSITIONS = 10
"""Positions whose impressions and clicks are counted."""

Verdict = Literal["positive", "negative"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The feedback from which a document counts as relevant for a query, or as irrelevant.

    A mean grade of `min_grade`; without grades `min_clicks`, in `min_impressions` or more, at a
    share of `min_click_share`. Without clicks `min_skips` make it irrelevant.
    """

    min_grade: float = 1.0
    min_clicks: int = 1
    min_impressions: int = 1
    min_click_share: float = 0.0
    min_skips: int = 1


@dataclass(slots=True)
class Pair:
    """The feedback on one document for one query; the content is that of `answer` at `index`."""

    answer: Answer
    index: int
    impressions: int = 0
    clicks: int = 0
    skips: int = 0
    grades: int = 0
    grade_sum: int = 0
    position_sum: int = 0

    def add(self, answer: Answer, index: int, position: int, skipped: set[int]) -> None:
        """Add one impression."""
        self.impressions += 1
        self.position_sum += position
        self.clicks += index in answer.clicked
        self.skips += index in skipped
        if index in answer.grades:
            self.grades += 1
            self.grade_sum += answer.grades[index]

    def mean_grade(self) -> float:
        return self.grade_sum / self.grades

    def verdict(self, at: Thresholds) -> Verdict | None:
        """The verdict on the document; None where the feedback is too little to tell."""
        if self.grades:
            return "positive" if self.mean_grade() >= at.min_grade else "negative"
        if self.impressions < at.min_impressions:
            return None
        if self.clicks >= at.min_clicks:
            is_clicked = self.clicks >= at.min_click_share * self.impressions
            return "positive" if is_clicked else None
        return "negative" if not self.clicks and self.skips >= at.min_skips else None


@dataclass(slots=True)
class QueryPairs:
    """A query with its instruction, and the pairs of its documents by their content."""

    key: bytes
    answer: Answer
    pairs: dict[bytes, Pair] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """Counts for the report: answers by what became of them, impressions and clicks by position."""

    answers: int = 0
    without_content: int = 0
    without_signal: int = 0
    impressions: list[int] = field(default_factory=lambda: [0] * POSITIONS)
    clicks: list[int] = field(default_factory=lambda: [0] * POSITIONS)


class Pairs:
    """All pairs of some answers, by query."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._queries: dict[bytes, QueryPairs] = {}
        self._pairs = 0

    def __iter__(self) -> Iterator[QueryPairs]:
        return iter(self._queries.values())

    def add(self, answer: Answer, contents: Contents) -> None:
        """Add the feedback on an answer; raises `DataError`."""
        self.counts.answers += 1
        displayed = answer.displayed()
        self._count_positions(answer, displayed)
        if not (answer.clicked or answer.grades):
            self.counts.without_signal += 1
        if not displayed:
            return
        found = contents.of(answer)
        if found is None or found.query is None:
            self.counts.without_content += 1
            return

        query = self._query(answer, found)
        skipped = answer.skipped()
        for position, index in enumerate(displayed):
            side = found.documents.get(index)
            if side is None:
                continue
            key = content_key(side)
            pair = query.pairs.get(key)
            if pair is None:
                pair = query.pairs[key] = Pair(answer, index)
                self._pairs += 1
                self._check_bound(answer)
            pair.add(answer, index, position, skipped)

    def _query(self, answer: Answer, found: AnswerContents) -> QueryPairs:
        assert found.query is not None
        instruction = (found.instruction or "").encode()
        framed = len(instruction).to_bytes(8, "big") + instruction + content_key(found.query)
        key = hashlib.blake2b(framed, digest_size=16).digest()
        return self._queries.setdefault(key, QueryPairs(key, answer))

    def _count_positions(self, answer: Answer, displayed: tuple[int, ...]) -> None:
        for position, index in enumerate(displayed[:POSITIONS]):
            self.counts.impressions[position] += 1
            self.counts.clicks[position] += index in answer.clicked

    def _check_bound(self, answer: Answer) -> None:
        if self._pairs > MAX_PAIRS:
            raise DataError(
                f"{answer.location}: there are more than {MAX_PAIRS:,} pairs of a query and a"
                " document: take fewer at a time, with --since or --tenant."
            )
