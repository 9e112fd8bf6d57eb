"""Doubts about fields: instructions that do not group rows, and fields that are always empty.

Depends on rows, not on models. Memory is bounded: at most `MAX_DISTINCT` instructions are told
apart. Invariant: every row is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from model_store.training.data.doubts.doubt import Doubt, Places, found
from model_store.training.data.rows import Example

MAX_DISTINCT = 100_000
_FEW = 20
_MANY = 0.5
"""Share of rows with an instruction of their own from which instructions name no tasks."""


class FieldDoubts:
    """Looks at instructions and ids."""

    def __init__(self, most: int = MAX_DISTINCT) -> None:
        """`most` bounds the instructions that are told apart: rows behind so many say nothing about
        their share."""
        self._most = most
        self._rows = self._given = self._named = 0
        self._distinct: set[int] = set()
        self._without, self._repeated = Places(), Places()

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`."""
        self._rows += 1
        self._named += not example.id.endswith(f":{line}")
        instruction = example.instruction
        if instruction is None:
            self._without.add(line)
            return

        if len(self._distinct) < self._most:
            self._given += 1
            self._distinct.add(hash(instruction))
        begin = (example.query.text or "").lstrip()[: len(instruction)]
        if len(instruction) >= 10 and begin == instruction:
            self._repeated.add(line, "query")

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        rows, without = self._rows, self._without.count
        if rows and without == rows:
            yield Doubt(
                "no-instruction",
                "No row has an instruction, so that all are learnt with the model's own: say what"
                " the task is, as your users' requests will.",
                rows,
                "row",
            )
        elif without:
            yield from found(
                "some-instructions",
                self._without,
                "row",
                rows,
                "Rows have no instruction, and are learnt with the model's own; others have one.",
            )
        distinct = len(self._distinct)
        if self._given >= _FEW and distinct > _MANY * self._given:
            yield Doubt(
                "own-instructions",
                "Most instructions stand in one row alone. An instruction names a task; what is"
                " asked belongs to the query.",
                distinct,
                "instruction",
            )
        yield from found(
            "instruction-in-query",
            self._repeated,
            "query",
            rows,
            "Queries begin with their instruction, which stands in the prompt already.",
        )
        if rows >= _FEW and not self._named:
            yield Doubt(
                "no-id",
                "No row has an id: negatives are drawn by the file's name and the row's line"
                " instead, so that a file with other lines gives other groups.",
                rows,
                "row",
            )
