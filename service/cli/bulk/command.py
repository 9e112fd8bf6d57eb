"""`gmr bulk`: its options.

Does not depend on httpx, pyarrow or Ray until it runs. Invariant: exit codes as in
`model_store.commands.console`; 1 also where a row has an error instead of scores.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_store.commands.console import fail, refusing
from model_store.commands.options import finite
from service.cli.client.options import KeyFile, Model, Url
from service.cli.shards import parse_shard

if TYPE_CHECKING:
    from service.cli.bulk.job import Shard
    from service.cli.bulk.run import Plan

MAX_ACTORS = 10_000
MAX_GPUS = 64.0
MAX_ROWS_PER_PART = 1_000_000


def bulk(
    source: Annotated[
        Path, typer.Argument(help="Rows of query and documents: a .jsonl or .parquet file.")
    ],
    out: Annotated[Path, typer.Argument(help="The .jsonl or .parquet file to write.")],
    *,
    url: Url = None,
    model: Model = None,
    key_file: KeyFile = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="Task of rows that have none: a text, or a name of `gmr instructions`.",
            metavar="TEXT|NAME",
        ),
    ] = None,
    query_field: Annotated[
        str, typer.Option(help="Field of a row with its query.", metavar="NAME")
    ] = "query",
    documents_field: Annotated[
        str, typer.Option(help="Field of a row with its candidates, a list.", metavar="NAME")
    ] = "documents",
    truncate: Annotated[
        Literal["end", "none"],
        typer.Option(
            metavar="end|none",
            help="end: cut the text of a pair that is too long; none: it has an error instead.",
        ),
    ] = "end",
    keep_inputs: Annotated[
        bool, typer.Option("--keep-inputs", help="Write query and candidates into the output, too.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Score part I of N, from 0; a run without --shard then joins all parts.",
            metavar="I/N",
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            "--ray", min=1, max=MAX_ACTORS, metavar="N", help="Score with N actors of Ray Data."
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
    concurrency: Annotated[
        int,
        typer.Option(min=1, max=256, metavar="N", help="Requests of 32 rows at the same time."),
    ] = 4,
    rows_per_part: Annotated[
        int,
        typer.Option(
            "--rows-per-part",
            min=1,
            max=MAX_ROWS_PER_PART,
            metavar="N",
            help="Rows of a part; an interrupted run scores at most one part again.",
        ),
    ] = 1_000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that exists.")
    ] = False,
    allow_errors: Annotated[
        bool,
        typer.Option("--allow-errors", help="Exit with 0 even if rows or candidates failed."),
    ] = False,
) -> None:
    """Score a file of queries and candidates: each row gets the scores of its candidates.

    Rows are sent behind all other requests of the service. An interrupted run continues where it
    stopped, with the same command. Shards share the folder of OUT, on one machine or several.

    The exit code is 1 if any row or candidate has no score: their errors are in the output, which
    is complete.
    """
    from model_store.errors import DataError, WrongUsage
    from service.cli.bulk.requests import RowShape
    from service.cli.bulk.run import Plan
    from service.cli.client.calls import CannotCall
    from service.cli.client.run import Target
    from service.cli.instruction import named_or_text

    options = {"on_error": "skip", "truncate": truncate}
    task = named_or_text(instruction)
    if task is not None:
        options["instruction"] = task

    plan = Plan(
        source.absolute(),
        out.absolute(),
        RowShape(query_field, documents_field, options=options),
        Target(url, model, key_file),
        rows_per_part,
        concurrency,
        keep_inputs,
        overwrite,
    )
    with refusing(DataError, CannotCall, usage=(WrongUsage,)):
        plan.check()
        _score(plan, _parse_shard(shard), actors, gpus)
        if shard is None:
            _finish(plan, allow_errors=allow_errors)
        else:
            typer.echo(f"Shard {shard} is done. A run without --shard joins all parts.")


def _score(plan: Plan, shard: Shard, actors: int | None, gpus: float) -> None:
    if actors is None:
        from service.cli.bulk.run import score_here

        asyncio.run(score_here(plan, shard))
        return

    from service.cli.bulk.cluster import score_on_cluster

    score_on_cluster(plan, shard, actors=actors, gpus=gpus)


def _finish(plan: Plan, *, allow_errors: bool) -> None:
    from service.cli.bulk.run import finish

    counts = finish(plan)
    rows, candidates = counts["failed_rows"], counts["failed_candidates"]
    verb = "is" if counts["rows"] == 1 else "are"
    typer.echo(f"{_amount(counts['rows'], 'row')} {verb} in {plan.target.name}.")

    failed: list[str] = []
    if rows:
        failed.append(f"{_amount(rows, 'row')} {_have(rows)} an error instead of scores")
    if candidates:
        of_rows = " of other rows" if rows else ""
        amount = _amount(candidates, "candidate")
        failed.append(f"{amount}{of_rows} {_have(candidates)} no score")
    if not failed:
        return

    sentence = f"{', and '.join(failed)}: see the fields error and errors."
    if not allow_errors:
        fail(sentence)
    typer.echo(sentence, err=True)


def _amount(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _parse_shard(text: str | None) -> Shard:
    from service.cli.bulk.job import Shard

    return Shard() if text is None else Shard(*parse_shard(text))
