"""A report of a run: each row of its benchmark's table, each cell, and the whole, with intervals.

Does not depend on files or on how a report is written. Invariant: a row is in the report if each of
its datasets has results, and cells and the whole are means over the rows that are in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import msgspec

from model_store.evaluation.bootstrap import RESAMPLES, Bootstrap, Estimate
from model_store.evaluation.metrics import parse_metric
from model_store.evaluation.reports.measured import Counts, Measured, measure
from model_store.evaluation.results import ResultsUnusable
from model_store.evaluation.runs.query_result import QueryResult

FORMAT = 1


class TableRow(Protocol):
    """A row of a benchmark's table; `datasets` are names."""

    @property
    def name(self) -> str: ...
    @property
    def cell(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def datasets(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class System:
    """A published system: its values by row, from 0 to 1, and where they were published."""

    name: str
    values: Mapping[str, float]


class Subject(msgspec.Struct, frozen=True):
    """The run that is reported: a benchmark, a first stage and a model."""

    benchmark: str
    model: str
    model_digest: str
    first_stage: str
    top_k: int
    checkpoint: str = ""
    """The SHA-256 of the model's manifest; "" for a model without one."""
    instruction: str | None = None
    """The instruction of every query; None for each dataset's, or the model's own."""


class Line(msgspec.Struct, frozen=True):
    """A row of the table, a cell, or the whole; values are from 0 to 1.

    Of a cell and of the whole, every value is the mean over its rows, and counts are sums.
    """

    name: str
    cell: str
    metric: str
    rows: int
    score: Estimate
    gain: Estimate
    """The score minus that of the first stage's own order, with its paired interval."""
    first_stage: float
    perfect: float
    """The score of a perfect reranker of the same candidates."""
    recall: float
    """The share of the relevant documents that are candidates."""
    counts: Counts
    systems: dict[str, float]
    """Published systems that have a value for each of the rows."""


class Report(msgspec.Struct, frozen=True):
    """A report: `missing` are rows without results, `expected` the queries that the run is of."""

    subject: Subject
    whole: Line
    cells: list[Line]
    rows: list[Line]
    systems: list[str]
    missing: list[str]
    expected: int
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """The rows of a table whose datasets all have results, and the values of those."""

    rows: list[TableRow]
    datasets: dict[str, Measured]
    missing: list[str]

    @property
    def groups(self) -> dict[str, Hashable]:
        """Equal for datasets of one cell that have the same queries."""
        groups: dict[str, Hashable] = {}
        for row in self.rows:
            for name in row.datasets:
                groups[name] = row.cell, tuple(self.datasets[name].queries)
        return groups


def measure_table(
    rows: Iterable[TableRow], results: Mapping[str, Iterable[QueryResult]]
) -> MeasuredTable:
    """Measure the results of datasets by the metrics of their rows.

    Raises `ResultsUnusable` where no row has results, and `MetricUnknown`.
    """
    present: list[TableRow] = []
    datasets: dict[str, Measured] = {}
    missing: list[str] = []
    for row in rows:
        metric = parse_metric(row.metric)
        measured = {name: measure(results.get(name, ()), metric) for name in row.datasets}
        found = {name: each for name, each in measured.items() if each is not None}
        if len(found) < len(measured):
            missing.append(row.name)
        else:
            present.append(row)
            datasets |= found
    if not present:
        raise ResultsUnusable("There is nothing to report: no row of the table has results yet.")
    return MeasuredTable(present, datasets, missing)


def make_report(
    subject: Subject,
    table: MeasuredTable,
    *,
    expected: int,
    systems: Sequence[System] = (),
    resamples: int = RESAMPLES,
) -> Report:
    """The report of a table. `expected` is the number of queries of its datasets."""
    lines = _Lines(table, systems, resamples)
    cells: dict[str, list[TableRow]] = {}
    for row in table.rows:
        cells.setdefault(row.cell, []).append(row)

    metrics = {row.metric for row in table.rows}
    common = next(iter(metrics)) if len(metrics) == 1 else ""
    whole = lines.line(subject.benchmark, "", common, table.rows)
    shown = {name for line in (whole, *map(lines.row, table.rows)) for name in line.systems}
    return Report(
        subject,
        whole,
        [lines.line(cell, cell, "", rows) for cell, rows in cells.items()],
        [lines.row(row) for row in table.rows],
        [system.name for system in systems if system.name in shown],
        table.missing,
        expected,
    )


class _Lines:
    """Lines of a report, from values that are resampled once."""

    def __init__(self, measured: MeasuredTable, systems: Sequence[System], resamples: int) -> None:
        datasets, groups = measured.datasets, measured.groups
        self._datasets, self._systems = datasets, systems
        scores = {name: each.score for name, each in datasets.items()}
        gains = {name: each.score - each.first_stage for name, each in datasets.items()}
        self._score = Bootstrap(scores, groups=groups, resamples=resamples)
        self._gain = Bootstrap(gains, groups=groups, resamples=resamples)
        self._first_stage = {name: each.first_stage.mean() for name, each in datasets.items()}
        self._perfect = {name: each.perfect.mean() for name, each in datasets.items()}
        self._recall = {name: each.recall.mean() for name, each in datasets.items()}

    def row(self, row: TableRow) -> Line:
        return self.line(row.name, row.cell, row.metric, [row])

    def line(self, name: str, cell: str, metric: str, rows: Sequence[TableRow]) -> Line:
        """The line of some rows together."""
        table = [row.datasets for row in rows]
        counts = Counts()
        for datasets in table:
            for dataset in datasets:
                counts.add(self._datasets[dataset].counts)

        return Line(
            name=name,
            cell=cell,
            metric=metric,
            rows=len(rows),
            score=self._score.estimate(table),
            gain=self._gain.estimate(table),
            first_stage=_mean(table, self._first_stage),
            perfect=_mean(table, self._perfect),
            recall=_mean(table, self._recall),
            counts=counts,
            systems=dict(self._published([row.name for row in rows])),
        )

    def _published(self, names: list[str]) -> Iterator[tuple[str, float]]:
        for system in self._systems:
            if all(name in system.values for name in names):
                yield system.name, fmean(system.values[name] for name in names)


def _mean(table: Sequence[Sequence[str]], means: Mapping[str, float]) -> float:
    """The mean over rows of the mean over their datasets."""
    return fmean(fmean(float(means[name]) for name in names) for names in table)
