"""`gmr eval report` and `gmr eval compare`: pages and pictures of a run, and of the difference of
two.

Does not depend on how scores are computed, or on a service. Invariant: files are written whole or
not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model_store.commands.console import FAILED, refusing

_FOLDER = "report"
"""The folder of a report in that of its run."""

ReportMetric = Annotated[
    str | None,
    typer.Option(
        help=(
            "Metric in place of each task's own: ndcg@10, mrr, recall@100, hit@5, map, or another"
            " number of candidates."
        ),
        metavar="NAME",
    ),
]


def register(app: typer.Typer) -> None:
    """Add `report` and `compare` to the commands of `gmr eval`."""
    app.command()(report)
    app.command()(compare)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of one run: its shards.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write; default: report/ in the first RUN.", metavar="FOLDER"),
    ] = None,
    metric: ReportMetric = None,
) -> None:
    """Report a run: each task with its interval, beside the first stage and the best order.

    Writes report.md, report.png, report.json and results.json, which `gmr eval compare` and `gmr
    models promote` read. A run that is not finished is reported as far as it is.
    """
    from model_store.evaluation.metrics import MetricUnknown, parse_metric
    from model_store.evaluation.reports.markdown import headline
    from model_store.evaluation.reports.run_report import (
        measure_run,
        report_of,
        results_of,
        write_report,
    )
    from model_store.evaluation.results import ResultsUnusable
    from model_store.evaluation.runs.folder import open_run
    from model_store.evaluation.runs.journal import RunUnusable

    with refusing(usage=(MetricUnknown,)):
        metric = None if metric is None else parse_metric(metric).name
    with refusing(ResultsUnusable, RunUnusable, MetricUnknown):
        run = open_run(*runs)
        table = measure_run(run, metric)
        made = report_of(run, table)
        folder = output or runs[0] / _FOLDER
        write_report(folder, made, results_of(run, table))
    for line in headline(made):
        typer.echo(line)
    typer.echo(f"The report is {folder / 'report.md'}.")


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="Folder of a run or of a report, or results.json.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The same of what is compared with it.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write: comparison.md, comparison.png and comparison.json.",
            metavar="FOLDER",
        ),
    ] = None,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit with 1 where B is worse than A.")
    ] = False,
) -> None:
    """Compare B with A, query by query, by a paired bootstrap: is it better, worse, or neither?

    Both must have the same queries, candidates and judgements.
    """
    from model_store.evaluation.metrics import MetricUnknown
    from model_store.evaluation.reports.comparison import compare_results
    from model_store.evaluation.reports.comparison_page import comparison_page, write_comparison
    from model_store.evaluation.reports.opening import open_results
    from model_store.evaluation.results import ResultsUnusable
    from model_store.evaluation.runs.journal import RunUnusable

    with refusing(ResultsUnusable, RunUnusable, MetricUnknown):
        comparison = compare_results(open_results(a), open_results(b))
        if output is not None:
            write_comparison(output, comparison)
    typer.echo(comparison_page(comparison), nl=False)
    if fail_if_worse and comparison.whole.difference.high < 0:
        raise typer.Exit(FAILED)
