"""Doubts about labels: kinds that are missing, rows that are twice, answers that give themselves
away by their length or modality.

Depends on the contents of sides, not on models. Memory is 12 bytes a row and a positive, in arrays.
Invariant: every row is looked at.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from model_store.training.data.doubts.doubt import SHOWN, Doubt, Place, Places, found, share_of
from model_store.training.data.doubts.statistics import LETTERS
from model_store.training.data.identity import content_key
from model_store.training.data.rows import Example, modality_of

_FEW = 20
"""Rows below which no share says anything."""
_FREQUENT = 0.05
_LONGER = 1.5
"""Times that positives are longer than negatives, or shorter, from which length alone tells them
apart."""


class LabelDoubts:
    """Looks at positives and negatives of each row."""

    def __init__(self) -> None:
        self._lines, self._queries, self._rows = array("I"), array("Q"), array("Q")
        self._positive_lines, self._positives = array("I"), array("Q")
        self._told, self._without, self._copies = Places(), Places(), Places()
        self._hard = self._random = 0
        self._lengths: tuple[list[int], list[int]] = ([], [])
        self._skip = 1

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`."""
        query = content_key(example.query)
        positives = [content_key(side) for side in example.positives]
        self._lines.append(line)
        self._queries.append(_number(query))
        self._rows.append(_number(query + b"".join(sorted(positives))))
        for key in positives:
            self._positives.append(_number(key))
            self._positive_lines.append(line)

        if not example.negatives:
            self._without.add(line)
        for negative in example.negatives:
            self._hard += negative.kind == "hard"
            self._random += negative.kind == "random"
        self._see_negatives(example, line)
        self._see_lengths(example)

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        rows = len(self._lines)
        yield from self._kinds(rows)
        yield from found(
            "modality",
            self._told,
            "row",
            rows,
            "Positives are of modalities that none of their negatives has: the modality tells them"
            " apart, and is what will be learnt.",
        )
        yield from self._length()
        yield from found(
            "negative-twice",
            self._copies,
            "row",
            rows,
            "Rows have the same negative twice, so that it counts twice.",
        )
        yield from self._repeated()
        yield from _frequent(
            "frequent-query", self._queries, self._lines, "query stands in many rows"
        )
        yield from _frequent(
            "frequent-positive",
            self._positives,
            self._positive_lines,
            "document is a positive of many rows",
        )

    def repeated_queries(self) -> set[int]:
        """Lines of rows whose query other rows have, too."""
        values = np.frombuffer(self._queries, np.uint64)
        if not len(values):
            return set()
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return set(np.frombuffer(self._lines, np.uint32)[counts[inverse] > 1].tolist())

    def _see_negatives(self, example: Example, line: int) -> None:
        sides = [negative.side for negative in example.negatives]
        if len({content_key(side) for side in sides}) < len(sides):
            self._copies.add(line)

        modalities = {LETTERS[modality_of(side)] for side in example.positives}
        others = {LETTERS[modality_of(side)] for side in sides}
        if sides and modalities.isdisjoint(others):
            remark = f"{', '.join(sorted(modalities))} among {', '.join(sorted(others))}"
            self._told.add(line, "", remark)

    def _see_lengths(self, example: Example) -> None:
        """Keep lengths of texts of every so many rows, so that there are at most 100,000."""
        if len(self._lines) % self._skip:
            return
        sides = [negative.side for negative in example.negatives]
        for kept, group in zip(self._lengths, (example.positives, sides), strict=True):
            kept += [len(side.text) for side in group if side.text is not None]
        if max(map(len, self._lengths)) > 100_000:
            self._lengths = (self._lengths[0][::2], self._lengths[1][::2])
            self._skip *= 2

    def _kinds(self, rows: int) -> Iterator[Doubt]:
        without = self._without.count
        if 0 < without < rows:
            yield from found(
                "no-negatives",
                self._without,
                "row",
                rows,
                "Rows have no negative: `gmr mine` finds some.",
            )

        total = self._hard + self._random
        kinds = (("hard", self._hard), ("random", self._random))
        for kind, count in kinds:
            other = "random" if kind == "hard" else "hard"
            if total and not count:
                value = 1 if kind == "hard" else 0
                yield Doubt(
                    f"no-{kind}",
                    f"No negative is {kind}, and the paper takes as many {kind} as {other} ones:"
                    f" set data.random_share to {value}, or mine {kind} ones.",
                    total,
                    "negative",
                )
            elif total and count < 0.25 * total and rows >= _FEW:
                yield Doubt(
                    f"few-{kind}",
                    f"Few negatives are {kind}, and the paper takes as many {kind} as {other} ones:"
                    " with data.random_share at 0.5, groups will be smaller than asked for.",
                    count,
                    "negative",
                    total,
                )

    def _length(self) -> Iterator[Doubt]:
        positives, negatives = self._lengths
        if min(len(positives), len(negatives)) < _FEW:
            return
        ours, theirs = float(np.median(positives)), float(np.median(negatives))
        if max(ours, theirs) < _LONGER * min(ours, theirs):
            return
        word = "longer" if ours > theirs else "shorter"
        yield Doubt(
            "length",
            f"Positives are {word} than negatives: half of them have more than {ours:,.0f}"
            f" characters, and half of the negatives more than {theirs:,.0f}; length alone tells"
            " many of them apart.",
            len(positives),
            "positive",
        )

    def _repeated(self) -> Iterator[Doubt]:
        """Rows with the same query and positives as an earlier one."""
        values = np.frombuffer(self._rows, np.uint64)
        _, first = np.unique(values, return_index=True)
        again = np.setdiff1d(np.arange(len(values)), first, assume_unique=True)

        places = Places()
        for number in again.tolist():
            places.add(self._lines[number])
        yield from found(
            "repeated-row",
            places,
            "row",
            len(values),
            "Rows repeat the query and the positives of an earlier row, and count twice.",
        )


def _frequent(name: str, keys: array[int], lines: array[int], fact: str) -> Iterator[Doubt]:
    """A doubt where one content takes more than `_FREQUENT` of all places."""
    values = np.frombuffer(keys, np.uint64)
    if len(values) < 2 * _FEW:
        return
    distinct, counts = np.unique(values, return_counts=True)
    most = int(counts.max())
    if most <= max(_FEW, _FREQUENT * len(values)):
        return
    numbers = np.flatnonzero(values == distinct[counts.argmax()])[:SHOWN]
    yield Doubt(
        name,
        f"One {fact}, {share_of(most, len(values))} of all: what is learnt leans towards it.",
        most,
        "row",
        len(values),
        tuple(Place(lines[number]) for number in numbers.tolist()),
    )


def _number(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
