"""Statistics of rows: modalities, lengths, kinds, instructions and scripts, as counts.

Depends on rows, not on models or pictures. Memory is bounded. Invariant: every row is counted once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from model_store.training.data.doubts.words import script_of
from model_store.training.data.rows import Example, Side, modality_of

ROLES = ("query", "positive", "negative")
MAX_DISTINCT = 10_000
LETTERS = {"text": "T", "image": "I", "image,text": "IT"}
"""The paper's names of modalities."""
_BINS = 50
"""Bins of lengths: bin n has texts of 2^(n/2) to 2^((n+1)/2) characters."""
_MOST = 33
"""Bin of negatives a row for this number and all above."""


@dataclass(slots=True)
class Statistics:
    """Counts over all rows."""

    rows: int = 0
    cells: Counter[str] = field(default_factory=Counter)
    """Rows by modalities of query and first positive, as the paper names them: `T-IT`."""
    modalities: dict[str, Counter[str]] = field(
        default_factory=lambda: {role: Counter() for role in ROLES}
    )
    lengths: dict[str, list[int]] = field(
        default_factory=lambda: {role: [0] * _BINS for role in ROLES}
    )
    characters: Counter[str] = field(default_factory=Counter)
    """Characters of all texts, by role."""
    hard: list[int] = field(default_factory=lambda: [0] * (_MOST + 1))
    """Rows by their number of hard negatives; the last one stands for all above."""
    random: list[int] = field(default_factory=lambda: [0] * (_MOST + 1))
    instructions: Counter[str] = field(default_factory=Counter)
    """Rows by instruction, of the first `MAX_DISTINCT` instructions."""
    scripts: dict[str, Counter[str]] = field(
        default_factory=lambda: {role: Counter() for role in ROLES}
    )

    def see(self, example: Example, line: int) -> None:
        """Count a row."""
        self.rows += 1
        query, positive = modality_of(example.query), modality_of(example.positives[0])
        self.cells[f"{LETTERS[query]}-{LETTERS[positive]}"] += 1
        self._see_side("query", example.query)
        for side in example.positives:
            self._see_side("positive", side)

        hard = 0
        for negative in example.negatives:
            self._see_side("negative", negative.side)
            hard += negative.kind == "hard"
        self.hard[min(_MOST, hard)] += 1
        self.random[min(_MOST, len(example.negatives) - hard)] += 1

        name = example.instruction or ""
        if name in self.instructions or len(self.instructions) < MAX_DISTINCT:
            self.instructions[name] += 1

    def total(self, role: str) -> int:
        """Sides of a role."""
        return self.modalities[role].total()

    def texts(self, role: str) -> int:
        """Sides of a role that have a text."""
        return sum(self.lengths[role])

    def median(self, role: str) -> int:
        """Characters that half of the texts of a role have at most, to half a power of two."""
        texts, seen = self.texts(role), 0
        for number, count in enumerate(self.lengths[role]):
            seen += count
            if 2 * seen >= texts:
                return edge(number)
        return 0

    def _see_side(self, role: str, side: Side) -> None:
        self.modalities[role][modality_of(side)] += 1
        if side.text is None:
            return
        self.lengths[role][_bin(len(side.text))] += 1
        self.characters[role] += len(side.text)
        self.scripts[role][script_of(side.text) or "no letters"] += 1


def edge(number: int) -> int:
    """Characters at which a bin of lengths begins."""
    return int(2 ** (number / 2))


def _bin(characters: int) -> int:
    """The bin of a length, from 1 character on."""
    whole = characters.bit_length() - 1
    return 2 * whole + (1 if characters * characters >= 2 ** (2 * whole + 1) else 0)
