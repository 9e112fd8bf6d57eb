"""`gmr eval tasks`: the benchmarks that `gmr eval --task` knows by name, as a table or JSON.

Does not depend on mteb or models. Invariant: every name that is printed opens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from model_store.commands.console import refusing

_BENCHMARK: tuple[str, ...] = ("name", "title", "tasks", "source")
_TASK: tuple[str, ...] = ("name", "cell", "metric", "queries", "documents", "instruction")
"""Columns of the tables."""


def register(app: typer.Typer) -> None:
    """Add `gmr eval tasks` to the commands."""
    app.command()(tasks)


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            help="List the tasks of this one alone, such as mrb or mrb:T-I.", show_default=False
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the benchmarks that --task takes by name, or the tasks of one of them.

    A part of a benchmark is named after a colon: a cell or a task, such as mrb:T-I or beir:scifact.
    """
    from model_store.evaluation.tasks.catalogue import NAMES, named_rows, read_table
    from model_store.evaluation.tasks.dataset import TaskUnusable

    if name is None:
        tables = [read_table(each) for each in NAMES]
        columns = _BENCHMARK
        listed = [_benchmark(table) for table in tables]
    else:
        with refusing(TaskUnusable):
            table, _, rows = named_rows(name)
        columns = _TASK
        listed = [_row(table.name, row) for row in rows]

    if as_json:
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        _print_table(columns, [[str(row[column] or "") for column in columns] for row in listed])


def _benchmark(table: Any) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "tasks": len(table.tasks),
        "source": table.source,
    }


def _row(benchmark: str, row: Any) -> dict[str, Any]:
    from model_store.evaluation.tasks.catalogue import instruction_of

    return {
        "name": f"{benchmark}:{row.name}",
        "cell": row.cell,
        "metric": row.metric,
        "queries": row.queries,
        "documents": row.documents,
        "instruction": instruction_of(row),
        "private": row.private,
        "datasets": [dataset.task for dataset in row.datasets],
    }


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal, and lines with tabs elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return

    table = Table(*columns, box=None, header_style="dim", padding=(0, 1))
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)
