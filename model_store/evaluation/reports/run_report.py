"""The report of a run's folders, its results for comparisons and promotions, and the files of both.

Depends on runs, not on the data of their tasks. Invariant: report.json is written last, so that a
folder that has it has the other files, too.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from model_store.evaluation.reports.chart import draw
from model_store.evaluation.reports.files import writing
from model_store.evaluation.reports.markdown import to_markdown
from model_store.evaluation.reports.measured import Measured
from model_store.evaluation.reports.report import (
    MeasuredTable,
    Report,
    Subject,
    System,
    make_report,
    measure_table,
)
from model_store.evaluation.results import Results, Row, write_results
from model_store.evaluation.runs.folder import Run
from model_store.evaluation.tasks.paper_systems import paper_systems
from model_store.files import write_atomically

MARKDOWN, CHART, RESULTS, REPORT = "report.md", "report.png", "results.json", "report.json"
_MAX_NAME_CHARS = 47
"""Characters of a benchmark's readable name, before its digest."""
MIXED = "task metrics"
"""The metric of results whose rows have several."""


def measure_run(run: Run, metric: str | None = None) -> MeasuredTable:
    """The values of a run's queries, by the metric of each task, or by one for all.

    Raises `ResultsUnusable`, `MetricUnknown`, `RunUnusable` and `OSError`.
    """
    names, rows = run.identity.datasets, run.identity.tasks
    if metric is not None:
        rows = [msgspec.structs.replace(row, metric=metric) for row in rows]
    return measure_table(rows, {name: run.results(name) for name in names})


def report_of(run: Run, table: MeasuredTable) -> Report:
    """The report of a run that was measured, beside the paper's systems. Raises `RunUnusable`."""
    identity = run.identity
    subject = Subject(
        benchmark=identity.benchmark,
        model=identity.model,
        model_digest=identity.model_digest,
        first_stage=identity.first_stage,
        top_k=identity.top_k,
        checkpoint=identity.checkpoint,
        instruction=identity.instruction,
    )
    return make_report(
        subject, table, expected=_queries(run), systems=published_systems(identity.benchmark)
    )


def published_systems(benchmark: str) -> list[System]:
    """The paper's systems, for a benchmark that it has."""
    systems: list[System] = []
    for each in paper_systems(benchmark):
        values = {task: value / 100 for task, value in each.values.items()}
        systems.append(System(each.name, values))
    return systems


def results_of(run: Run, table: MeasuredTable) -> Results:
    """A run's values by query, as comparisons and the gate of promotions take them.

    The benchmark's name ends in a digest of all data, queries, candidates and judgements. Raises
    `RunUnusable`.
    """
    identity = run.identity
    digests = {name: _digest(run, name, each) for name, each in table.datasets.items()}
    whole = hashlib.sha256(msgspec.json.encode(sorted(digests.items()))).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", identity.benchmark).strip("-._") or "benchmark"
    metrics = {row.metric for row in table.rows}
    rows = {
        row.name: Row(cell=row.cell, metric=row.metric, datasets=list(row.datasets))
        for row in table.rows
    }
    datasets: dict[str, dict[str, float]] = {}
    for name, each in table.datasets.items():
        datasets[name] = dict(zip(each.queries, each.score.tolist(), strict=True))
    failed = sum(each.counts.failed for each in table.datasets.values())
    reported = sum(each.counts.queries for each in table.datasets.values())
    return Results(
        benchmark=f"{readable[:_MAX_NAME_CHARS]}-{whole[:16]}",
        metric=metrics.pop() if len(metrics) == 1 else MIXED,
        checkpoint=identity.checkpoint or identity.model_digest,
        datasets=datasets,
        model=identity.model,
        rows=rows,
        candidates=digests,
        failed=failed or None,
        instruction=identity.instruction,
        unfinished=bool(table.missing) or reported < _queries(run) or None,
    )


def _digest(run: Run, name: str, measured: Measured) -> str:
    """Changes with a dataset's texts, images and instructions, and with what was measured."""
    header = run.header(name)
    data = "" if header is None else header.digest
    digest = hashlib.sha256(msgspec.json.encode((data, measured.digest))).hexdigest()
    return f"sha256:{digest}"


def _queries(run: Run) -> int:
    """The queries of all datasets that the run has begun with."""
    headers = [run.header(name) for name in run.identity.datasets]
    return sum(header.queries for header in headers if header is not None)


def write_report(folder: Path, report: Report, results: Results) -> None:
    """Write the files of a report into a folder, each whole or not at all.

    Raises `ResultsUnusable` where one cannot be written, and `ModuleNotFoundError` without
    matplotlib, before any file.
    """
    with writing(folder):
        write_results(folder / RESULTS, results)
        draw(report, folder / CHART)
        write_atomically(folder / MARKDOWN, to_markdown(report).encode())
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
        write_atomically(folder / REPORT, encoded + b"\n")
