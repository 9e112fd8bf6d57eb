"""`gmr bulk`: its options.

Does not depend on httpx, pyarrow or Ray until it runs. Invariant: exit codes as in
`model_store.commands.console`; 1 also where a row has an error instead of scores.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_store.commands.console import fail, misuse, refusing
from model_store.commands.options import finite

if TYPE_CHECKING:
    from service.cli.bulk.job import Shard
    from service.cli.bulk.run import Plan

MAX_SHARDS = 1_000_000
MAX_ACTORS = 10_000
MAX_GPUS = 64.0
MAX_ROWS_A_PART = 1_000_000


def bulk(
    source: Annotated[
        Path, typer.Argument(help="Rows of query and documents: a .jsonl or .parquet file.")
    ],
    out: Annotated[Path, typer.Argument(help="The .jsonl or .parquet file to write.")],
    *,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of the service; default: RERANK_URL, or http://127.0.0.1:8000.",
            metavar="URL",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=(
                "With a URL: the served model to ask. Without: a model to load in this process,"
                " such as gmr-tiny, with no server."
            ),
            metavar="NAME",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the API key; default: RERANK_KEY_FILE, or RERANK_KEY.", metavar="FILE"
        ),
    ] = None,
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
            help="I/N: score part I of N, from 0; a run without it then finishes.", metavar="I/N"
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option("--ray", min=1, max=MAX_ACTORS, help="Score with so many Ray actors."),
    ] = None,
    gpus: Annotated[
        float, typer.Option(min=0.0, max=MAX_GPUS, callback=finite, help="GPUs per actor.")
    ] = 0,
    concurrency: Annotated[
        int,
        typer.Option(min=1, max=256, metavar="N", help="Requests of 32 rows at the same time."),
    ] = 4,
    rows_a_part: Annotated[
        int,
        typer.Option(
            "--rows-per-part",
            min=1,
            max=MAX_ROWS_A_PART,
            metavar="N",
            help="Rows of a part: what an interrupted run does again at most.",
        ),
    ] = 1_000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that is there.")
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
    from model_store.training.data.rows import DataError, WrongUsage
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
        rows_a_part,
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
            typer.echo(f"Shard {shard} is done. A run without --shard puts all together.")


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
    typer.echo(f"{counts['rows']:,} rows are in {plan.target.name}.")
    if not counts["failed_rows"] and not counts["failed_candidates"]:
        return

    sentence = (
        f"{counts['failed_rows']:,} rows have an error instead of scores, and"
        f" {counts['failed_candidates']:,} candidates of other rows have none: see the fields error"
        " and errors."
    )
    if not allow_errors:
        fail(sentence)
    typer.echo(sentence, err=True)


def _parse_shard(text: str | None) -> Shard:
    from service.cli.bulk.job import Shard

    if text is None:
        return Shard()
    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
    if not match or not int(match[1]) < int(match[2]) <= MAX_SHARDS:
        misuse(
            f"A --shard is I/N with I from 0 to N - 1 and N up to {MAX_SHARDS:,}, not"
            f" {text[:40]!r}."
        )
    return Shard(int(match[1]), int(match[2]))
