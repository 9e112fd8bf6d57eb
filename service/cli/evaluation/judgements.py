"""`gmr eval judgements`: two served models on a folder of one's own queries, with a paired verdict.

Depends on the runner and on reports. Invariant: both models score the same candidates, and an
interrupted command continues.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import fail, refusing
from service.cli.client.options import KeyFile, Model, Url

if TYPE_CHECKING:
    from model_store.evaluation.reports.report import Report
    from model_store.evaluation.results import Results
    from model_store.evaluation.tasks.readers.judged_folder import JudgedFolder
    from service.cli.client.run import Target

_METRIC = "ndcg@10"
_TOP_K = 1_000
PAGE = "judgements.md"


def judgements(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with judgements.jsonl, or one in BEIR's layout with candidates."
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            help="Folder of both runs and of the report: created, or continued.", metavar="FOLDER"
        ),
    ],
    url: Url = None,
    model: Model = None,
    url_b: Annotated[
        str | None,
        typer.Option(help="URL of the service of model B; default: that of A.", metavar="URL"),
    ] = None,
    model_b: Annotated[
        str | None,
        typer.Option(
            help=(
                "Model B, of the service of B, or in this process as --model is; default: the"
                " first one of --url-b."
            ),
            metavar="NAME",
        ),
    ] = None,
    key_file: KeyFile = None,
    key_file_b: Annotated[
        Path | None,
        typer.Option(
            help=(
                "File with the API key of --url-b; default: that of A where both are on one host,"
                " and none elsewhere."
            ),
            metavar="FILE",
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Such as ndcg@10, mrr, hit@5 or recall@20.", metavar="NAME")
    ] = _METRIC,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Queries at the same time.")
    ] = 4,
) -> None:
    """Compare two served models on queries of your own, by grades or clicks: better, worse, or
    neither?

    A is the model at --url, or --model of it; B is the model at --url-b, or --model-b. Without any
    URL both are loaded in this process. Each query's documents are ranked by both. The same command
    continues after an interruption.
    """
    from model_store.evaluation.metrics import MetricUnknown, parse_metric
    from model_store.evaluation.results import ResultsUnusable
    from model_store.evaluation.runs.journal import RunUnusable
    from model_store.evaluation.runs.scorer import ScoringStopped
    from model_store.evaluation.tasks.dataset import TaskUnusable
    from service.cli.client.calls import CannotCall
    from service.cli.evaluation.sides import two_targets

    targets = two_targets((url, model, key_file), (url_b, model_b, key_file_b))
    with refusing(TaskUnusable, RunUnusable, CannotCall, ResultsUnusable, usage=(MetricUnknown,)):
        parse_metric(metric)
        judged = _open(folder)
        try:
            failed = _score(folder, output, targets, concurrency)
        except ScoringStopped as stopped:
            fail(f"{stopped} What was scored is in {output}; the same command continues.")
        _report(output, judged, metric)
    if failed:
        fail(
            f"Queries without scores, of both models together: {failed:,}. The same command scores"
            " them once more."
        )


def _open(folder: Path) -> JudgedFolder | None:
    """The judged queries of a folder, checked; None where it has another layout.

    Raises `TaskUnusable`, also where there are too few queries for a verdict.
    """
    from model_store.evaluation.gate import MIN_QUERIES
    from model_store.evaluation.tasks.dataset import TaskUnusable
    from model_store.evaluation.tasks.readers.judged_folder import JUDGEMENTS, JudgedFolder

    if not (folder / JUDGEMENTS).is_file():
        return None
    judged = JudgedFolder(folder)
    if len(judged) < MIN_QUERIES:
        raise TaskUnusable(
            f"{folder / JUDGEMENTS}: {len(judged)} queries with a relevant document are too few for"
            f" a verdict: {MIN_QUERIES} are needed."
        )
    return judged


def _score(folder: Path, output: Path, targets: tuple[Target, Target], concurrency: int) -> int:
    """Score what is left by both models; returns the number of queries that failed."""
    from service.cli.evaluation.evaluating import Evaluation, evaluate

    asyncio.run(_refuse_the_same(*targets))
    failed = 0
    for name, target in zip("ab", targets, strict=True):
        asked = Evaluation(
            task=str(folder.absolute()),  # a name alone could be a benchmark's
            folder=(output / name).absolute(),
            service=target,
            top_k=_TOP_K,
            concurrency=concurrency,
        )
        failed += asyncio.run(evaluate(asked)).failed
    return failed


async def _refuse_the_same(a: Target, b: Target) -> None:
    """Raise `CannotCall` where both targets are one model, before it is asked twice."""
    from service.cli.client.calls import CannotCall, Service
    from service.cli.client.run import is_in_process, open_client
    from service.cli.evaluation.scorer import served_model
    from service.cli.evaluation.sides import with_own_key

    digests: list[str] = []
    for target in (a, b):
        if is_in_process(target):
            digests.append(str(target.model))
            continue
        async with open_client(target, 1) as (client, model):
            service = Service(client)
            try:
                served = await served_model(service, model, await service.info())
            except CannotCall as error:
                raise with_own_key(error, target) from None
            digests.append(served.digest)
    if digests[0] == digests[1]:
        raise CannotCall(f"A and B are the same model ({digests[0][:19]}): name another one.")


def _report(output: Path, judged: JudgedFolder | None, metric: str) -> None:
    """Write both reports, their comparison and the page, and print the page."""
    from model_store.evaluation.reports.comparison import compare_results
    from model_store.evaluation.reports.comparison_page import write_comparison
    from model_store.evaluation.reports.judged_page import judged_page
    from model_store.evaluation.reports.run_report import (
        measure_run,
        report_of,
        results_of,
        write_report,
    )
    from model_store.evaluation.runs.folder import open_run
    from model_store.files import write_atomically

    def reported(name: str) -> tuple[Report, Results]:
        run = open_run(output / name)
        measured = measure_run(run, metric)
        report, results = report_of(run, measured), results_of(run, measured)
        write_report(output / name / "report", report, results)
        return report, results

    (report_a, results_a), (report_b, results_b) = reported("a"), reported("b")
    comparison = compare_results(results_a, results_b)
    write_comparison(output, comparison)
    page = judged_page(comparison, report_a, report_b, judged)
    write_atomically(output / PAGE, page.encode())
    typer.echo(page, nl=False)
    typer.echo(f"\nThe report is {output / PAGE}.")
