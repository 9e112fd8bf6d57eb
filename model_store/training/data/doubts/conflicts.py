"""Doubts about rows that contradict each other: a positive of one is a negative of another with the
same query.

Depends on the contents of sides. Memory is that of the rows whose query stands in several, up to a
bound. Invariant: a contradiction is found whichever of its rows comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from model_store.training.data.doubts.doubt import Doubt, Places, found
from model_store.training.data.identity import content_key
from model_store.training.data.rows import Example

MAX_SIDES = 2_000_000
"""Positives of such rows, and negatives, that are kept."""


class Conflicts:
    """Looks at rows whose query stands in several."""

    def __init__(self) -> None:
        self._positives: dict[bytes, int] = {}
        self._negatives: list[tuple[bytes, int, int]] = []

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`."""
        query = content_key(example.query)
        for side in example.positives:
            if len(self._positives) < MAX_SIDES:
                self._positives.setdefault(_pair(query, content_key(side)), line)
        for index, negative in enumerate(example.negatives):
            if len(self._negatives) < MAX_SIDES:
                self._negatives.append((_pair(query, content_key(negative.side)), line, index))

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        conflicts = Places()
        for pair, line, index in self._negatives:
            other = self._positives.get(pair)
            if other is not None:
                conflicts.add(line, f"negatives[{index}]", f"a positive of line {other}")
        yield from found(
            "contradiction",
            conflicts,
            "negative",
            0,
            "Negatives are positives of another row with the same query: one of the two labels is"
            " wrong.",
        )


def _pair(query: bytes, document: bytes) -> bytes:
    return blake2b(query + document, digest_size=8).digest()
