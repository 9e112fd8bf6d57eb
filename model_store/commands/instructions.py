"""`gmr instructions`: the paper's instructions by task and data set, as a table, JSON or one text.

Does not depend on models. Invariant: an instruction is printed as the paper spells it.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from model_store.commands.console import refusing


def register(app: typer.Typer) -> None:
    """Add `gmr instructions` to the commands."""
    app.command()(instructions)


def instructions(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print this one alone: a name of the list, or a data set.", show_default=False
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the paper's instructions for its evaluation tasks (table 13), or print one.

    A task is a text query (T), an image (I) or both (IT), and the same of its documents; VD are
    screenshots of documents. `gmr rerank --instruction` takes the names.
    """
    from model_store.evaluation.tasks.instructions import TABLE_13, NoInstruction, named_instruction

    rows = TABLE_13
    if name is not None:
        with refusing(NoInstruction):
            rows = (named_instruction(name),)

    if as_json:
        listed = [{"name": row.name, "instruction": row.instruction} for row in rows]
        typer.echo(json.dumps(listed if name is None else listed[0], indent=2))
    elif name is not None:
        typer.echo(rows[0].instruction)
    else:
        _print_table([(row.name, row.instruction) for row in rows])


def _print_table(rows: list[tuple[str, str]]) -> None:
    """A table on a terminal, and lines with a tab elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        for name, instruction in rows:
            typer.echo(f"{name}\t{instruction}")
        return

    table = Table("name", "instruction", box=None, header_style="dim", padding=(0, 1))
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)
