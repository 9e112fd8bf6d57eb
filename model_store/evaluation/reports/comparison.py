"""Two results compared query by query: each row of the table, each cell, and the whole.

Depends on results, not on runs. Invariant: results of different queries, candidates or judgements
are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

import msgspec

from model_store.evaluation.bootstrap import RESAMPLES, Bootstrap, Estimate, FloatArray
from model_store.evaluation.gate import MIN_QUERIES, groups_of, paired_differences
from model_store.evaluation.results import Results, ResultsUnusable

SHOWN_QUERIES = 10
"""Queries that are listed for a loss, and for a gain."""


class Compared(msgspec.Struct, frozen=True):
    """One of the two results."""

    model: str
    checkpoint: str
    """The digest of the model."""
    failed: int
    """Queries without scores."""
    instruction: str = ""
    """The instruction of every query; "" for each dataset's, or the model's own."""
    unfinished: bool = False


class Difference(msgspec.Struct, frozen=True):
    """A row of the table, a cell, or the whole; values are from 0 to 1."""

    name: str
    cell: str
    metric: str
    rows: int
    queries: int
    a: float
    b: float
    difference: Estimate
    """`b` minus `a`, with its paired interval."""

    @property
    def verdict(self) -> Literal["better", "worse", "not told apart"]:
        """The verdict on B beside A, by the interval of the difference."""
        if not self.difference.differs_from_zero:
            return "not told apart"
        return "better" if self.difference.value > 0 else "worse"


class QueryDifference(msgspec.Struct, frozen=True):
    """The values of one query."""

    dataset: str
    query: str
    a: float
    b: float


class Comparison(msgspec.Struct, frozen=True):
    """B against A; `losses` and `gains` are the queries that differ most."""

    benchmark: str
    a: Compared
    b: Compared
    whole: Difference
    cells: list[Difference]
    rows: list[Difference]
    losses: list[QueryDifference]
    gains: list[QueryDifference]
    equal: int
    """Queries that have the same value in both."""


def compare_results(a: Results, b: Results, *, resamples: int = RESAMPLES) -> Comparison:
    """The comparison of two results.

    Raises `ResultsUnusable` where they are not of the same queries and candidates, or of fewer than
    `MIN_QUERIES` queries.
    """
    differences = paired_differences(b, a)
    queries = sum(map(len, differences.values()))
    if queries < MIN_QUERIES:
        raise ResultsUnusable(
            f"{queries} queries are too few to compare on: {MIN_QUERIES} are needed."
        )

    lines = _Lines(a, b, differences, resamples)
    cells: dict[str, list[str]] = {}
    for name in a.table:
        cells.setdefault(_cell(a, name), []).append(name)
    losses, gains, equal = _extremes(a, b)
    return Comparison(
        a.benchmark,
        _compared(a),
        _compared(b),
        lines.line(a.benchmark, "", a.metric, list(a.table)),
        [lines.line(cell, cell, "", names) for cell, names in cells.items() if cell],
        [lines.line(name, _cell(a, name), _metric(a, name), [name]) for name in a.table],
        losses,
        gains,
        equal,
    )


class _Lines:
    """Lines of a comparison, from differences that are resampled once."""

    def __init__(
        self, a: Results, b: Results, differences: Mapping[str, FloatArray], resamples: int
    ) -> None:
        self._table, self._differences = a.table, differences
        self._bootstrap = Bootstrap(differences, groups=groups_of(a), resamples=resamples)
        self._a, self._b = _means(a), _means(b)

    def line(self, name: str, cell: str, metric: str, rows: Sequence[str]) -> Difference:
        table = [self._table[row] for row in rows]
        return Difference(
            name=name,
            cell=cell,
            metric=metric,
            rows=len(rows),
            queries=sum(len(self._differences[each]) for datasets in table for each in datasets),
            a=_mean(table, self._a),
            b=_mean(table, self._b),
            difference=self._bootstrap.estimate(table),
        )


def _means(results: Results) -> dict[str, float]:
    return {name: fmean(values.values()) for name, values in results.datasets.items()}


def _mean(table: Sequence[Sequence[str]], means: Mapping[str, float]) -> float:
    return fmean(fmean(means[name] for name in names) for names in table)


def _cell(results: Results, name: str) -> str:
    return results.rows[name].cell if results.rows else ""


def _metric(results: Results, name: str) -> str:
    return results.rows[name].metric if results.rows else results.metric


def _compared(results: Results) -> Compared:
    return Compared(
        results.model or "",
        results.checkpoint,
        results.failed or 0,
        results.instruction or "",
        bool(results.unfinished),
    )


def _extremes(a: Results, b: Results) -> tuple[list[QueryDifference], list[QueryDifference], int]:
    """The queries that lose most, those that gain most, and the number of equal ones."""
    changed: list[tuple[float, str, str]] = []
    equal = 0
    for dataset, values in a.datasets.items():
        for query, value in values.items():
            difference = b.datasets[dataset][query] - value
            if difference:
                changed.append((difference, dataset, query))
            else:
                equal += 1

    changed.sort()
    losses = [each for each in changed[:SHOWN_QUERIES] if each[0] < 0]
    gains = [each for each in changed[: -SHOWN_QUERIES - 1 : -1] if each[0] > 0]
    return (
        [_query(a, b, dataset, query) for _, dataset, query in losses],
        [_query(a, b, dataset, query) for _, dataset, query in gains],
        equal,
    )


def _query(a: Results, b: Results, dataset: str, query: str) -> QueryDifference:
    return QueryDifference(dataset, query, a.datasets[dataset][query], b.datasets[dataset][query])
