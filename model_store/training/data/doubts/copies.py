"""Doubts about near copies: negatives that nearly repeat a positive of their row, and held-out
texts that are nearly in training rows.

Depends on the words of texts. Memory is bounded: 32 bytes and 250 of overhead or so for each
held-out text that is known, and 4 for each three words of those that are compared. Invariant: equal
texts are no near copies; they are faults or leaks, which are found elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from model_store.training.data.doubts.doubt import Doubt, Places, found
from model_store.training.data.doubts.words import NEAR, NearCopies, likeness, triples
from model_store.training.data.identity import normalize_text
from model_store.training.data.rows import Example

MAX_HELD_OUT = 50_000
"""Held-out rows whose near copies are looked for."""


class CopiesInRows:
    """Compares each text negative with each text positive of its row."""

    def __init__(self) -> None:
        self._copies, self._negatives = Places(), 0

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`."""
        positives = [
            (triples(side.text), normalize_text(side.text))
            for side in example.positives
            if side.text is not None and side.image is None
        ]
        for index, negative in enumerate(example.negatives):
            text = negative.side.text
            if text is None or negative.side.image is not None or not positives:
                continue
            self._negatives += 1
            ours, plain = triples(text), normalize_text(text)
            for number, (theirs, known) in enumerate(positives):
                like = likeness(ours, theirs)
                if like >= NEAR and plain != known:
                    remark = f"{like:.0%} of the words of positives[{number}]"
                    self._copies.add(line, f"negatives[{index}]", remark)
                    break

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        yield from found(
            "near-copy",
            self._copies,
            "negative",
            self._negatives,
            "Negatives nearly repeat a positive of their row: they may be relevant, too.",
        )


class HeldOutCopies:
    """Compares queries and positives of training rows with those that are held out; `left_out` is
    the number of held-out texts that are beyond the bounds, and not compared."""

    def __init__(self, held_out: Iterable[Example]) -> None:
        self._known: set[bytes] = set()
        self._texts = NearCopies()
        self._queries, self._positives, self._rows = Places(), Places(), 0
        self.left_out = 0
        for number, example in enumerate(held_out):
            for name, text in _texts(example):
                if number < MAX_HELD_OUT:
                    self._known.add(_digest(text))
                    self.left_out += not self._texts.add(text, f"{name} of {example.location}")
                else:
                    self.left_out += 1

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`."""
        self._rows += 1
        for name, text in _texts(example):
            near = self._texts.find(text)
            if near is None or _digest(text) in self._known:
                continue
            places = self._queries if name == "query" else self._positives
            places.add(line, name, f"{near[1]:.0%} of the words of {near[0]}")

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        yield from found(
            "near-leak-query",
            self._queries,
            "query",
            self._rows,
            "Queries nearly repeat a held-out text: held-out figures will flatter.",
        )
        yield from found(
            "near-leak-positive",
            self._positives,
            "positive",
            0,
            "Positives nearly repeat a held-out text: held-out figures will flatter.",
        )


def _digest(text: str) -> bytes:
    return blake2b(normalize_text(text).encode("utf-8", "replace"), digest_size=16).digest()


def _texts(example: Example) -> Iterator[tuple[str, str]]:
    """The texts of the query and of the positives, with their names."""
    if example.query.text is not None and example.query.image is None:
        yield "query", example.query.text
    for index, side in enumerate(example.positives):
        if side.text is not None and side.image is None:
            yield f"positives[{index}]", side.text
