"""`gmr eval benchmark`: its options.

Does not depend on torch, mteb or Ray until it runs. Invariant: exit codes as in
`model_store.commands.console`; 1 also where a query has no scores.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import EXTRAS, fail, missing_package, misuse, refusing
from model_store.commands.options import finite
from service.cli.client.options import KeyFile, Model, Url
from service.cli.shards import parse_shard

if TYPE_CHECKING:
    from model_store.evaluation.runs.runner import Summary
    from model_store.evaluation.runs.shards import Shard
    from service.cli.evaluation.evaluating import Evaluation

MAX_TOP_K = 1_000
MAX_QUERIES = 1_000_000
MAX_ACTORS = 10_000
MAX_GPUS = 64.0


def evaluate_benchmark(
    *,
    task: Annotated[
        str,
        typer.Option(
            help="The benchmark: nine-cells, mrb, vidore-v3, beir:NAME, mteb:TASK, or a folder or"
            " file of your own.",
            metavar="NAME|FOLDER",
        ),
    ],
    run: Annotated[
        Path,
        typer.Option(
            help="Folder of the run: created, or continued where it stopped.", metavar="FOLDER"
        ),
    ],
    url: Url = None,
    model: Model = None,
    key_file: KeyFile = None,
    top_k: Annotated[
        int, typer.Option(min=1, max=MAX_TOP_K, metavar="N", help="Candidates a query, at most.")
    ] = 100,
    first_stage: Annotated[
        str,
        typer.Option(
            help=(
                "Candidates: own (those of the data), bm25, gme, run:FILE, or a folder or hub id"
                " of sentence-transformers."
            ),
            metavar="NAME",
        ),
    ] = "own",
    first_stage_folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of searches and vectors, which runs of other models share; default: in"
            " the run's folder.",
            metavar="FOLDER",
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="Instruction of every query, in place of the data's: a text, or a name of"
            " `gmr instructions`.",
            metavar="TEXT|NAME",
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_QUERIES,
            metavar="N",
            help="Queries of each dataset, at most, always the same ones; default: all, and 50 of"
            " each of the nine cells.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Score part I of N, from 0; parts may share the folder.", metavar="I/N"),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Queries at the same time.")
    ] = 4,
    actors: Annotated[
        int | None,
        typer.Option(
            "--ray",
            min=1,
            max=MAX_ACTORS,
            metavar="N",
            help="Score N parts at the same time, by actors of Ray Data.",
        ),
    ] = None,
    gpus: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=MAX_GPUS,
            callback=finite,
            metavar="X",
            help="With --ray: GPUs per actor.",
        ),
    ] = 0,
    token_price: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1e9,
            callback=finite,
            metavar="X",
            help="Price of a million prompt tokens, in any currency.",
        ),
    ] = None,
) -> None:
    """Score a benchmark's candidates by a service, query by query, into a run's folder.

    The service is the one at --url; without it, --model is loaded in this process. An interrupted
    run continues with the same command, which also scores queries that failed once more. A
    finished run has a report: RUN/report/report.md.

    The exit code is 1 if a query has no scores.
    """
    from model_store.evaluation.runs.journal import RunUnusable
    from model_store.evaluation.runs.scorer import ScoringStopped
    from model_store.evaluation.tasks.dataset import TaskUnusable
    from service.cli.client.calls import CannotCall
    from service.cli.client.run import Target
    from service.cli.evaluation.evaluating import Evaluation
    from service.cli.instruction import named_or_text

    if actors is not None and shard is not None:
        misuse("--ray scores all parts: give it or --shard, not both.")
    if actors is None and gpus:
        misuse("--gpus are those of an actor: give --ray, too.")
    asked = Evaluation(
        task,
        run.absolute(),
        Target(url, model, key_file),
        first_stage,
        None if first_stage_folder is None else first_stage_folder.absolute(),
        top_k,
        named_or_text(instruction),
        queries,
        concurrency,
        _parse_shard(shard),
    )
    with refusing(TaskUnusable, RunUnusable, CannotCall):
        try:
            summary = _evaluate(asked, actors, gpus)
        except ScoringStopped as stopped:
            fail(f"{stopped} What was scored is in {run}; the same command continues.")
    _print_summary(summary, token_price)
    _report(run, shard)
    if summary.failed:
        have = "has" if summary.failed == 1 else "have"
        fail(
            f"{_amount(summary.failed)} {have} no scores; the first one is"
            f" {summary.first_failure} The same command scores them once more."
        )


def _parse_shard(text: str | None) -> Shard:
    from model_store.evaluation.runs.shards import Shard

    return Shard() if text is None else Shard(*parse_shard(text))


def _evaluate(asked: Evaluation, actors: int | None, gpus: float) -> Summary:
    if actors is None:
        from service.cli.evaluation.evaluating import evaluate

        return asyncio.run(evaluate(asked))

    from service.cli.evaluation.cluster import evaluate_on_cluster

    return evaluate_on_cluster(asked, actors=actors, gpus=gpus)


def _print_summary(summary: Summary, token_price: float | None) -> None:
    """Print what this command has done."""
    if not summary.queries:
        typer.echo("All queries had scores before.")
        return
    pairs = f"{summary.pairs:,} pairs ({summary.cached_pairs:,} of them from the score cache)"
    tokens = f"{summary.prompt_tokens:,} prompt tokens"
    if token_price is not None:
        tokens += f", which cost {summary.prompt_tokens / 1e6 * token_price:,.2f}"
    typer.echo(f"Scored {_amount(summary.queries - summary.failed)}: {pairs}, {tokens}.")
    if summary.refused:
        typer.echo(
            f"The service refused {summary.refused:,} documents, which rank last; the first one:"
            f" {summary.first_refusal}"
        )


def _report(run: Path, shard: str | None) -> None:
    """Write the report of a run, and print its first lines; of a shard, say how to."""
    if shard is not None:
        typer.echo(f"Shard {shard} is in {run}; `gmr eval report` reports all shards together.")
        return

    from model_store.commands.reports import report

    try:
        report([run])
    except ModuleNotFoundError as missing:
        module = missing.name or ""
        if module not in EXTRAS:
            raise
        sentence = missing_package("A report", module)
        typer.echo(f"The results are in {run}. {sentence} Then run `gmr eval report {run}`.")


def _amount(queries: int) -> str:
    return f"{queries:,} {'query' if queries == 1 else 'queries'}"
