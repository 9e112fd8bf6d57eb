"""Means of a benchmark's table: the values of its rows to those of its cells, and to one score.

Does not depend on data or models. Invariant: a mean over rows of which one has no value is no
number, since systems are compared on the same rows alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Protocol


class Row(Protocol):
    """A row of a table, such as a `Task`."""

    @property
    def name(self) -> str:
        """The name of the row."""
        ...

    @property
    def cell(self) -> str:
        """The group that it belongs to."""
        ...


@dataclass(frozen=True, slots=True)
class Aggregates:
    """Means over rows, in the table's order; None where a row has no value."""

    cells: dict[str, float | None]
    rows: dict[str, int]
    """The number of rows of each cell."""
    score: float | None
    """The plain mean over all rows: the paper's column ALL of table 4."""


def aggregate(table: Iterable[Row], values: Mapping[str, float]) -> Aggregates:
    """The means of a system whose values are given by the names of rows."""
    by_cell: dict[str, list[float | None]] = {}
    for row in table:
        by_cell.setdefault(row.cell, []).append(values.get(row.name))

    every = list(chain.from_iterable(by_cell.values()))
    return Aggregates(
        cells={cell: _mean(of_cell) for cell, of_cell in by_cell.items()},
        rows={cell: len(of_cell) for cell, of_cell in by_cell.items()},
        score=_mean(every),
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
