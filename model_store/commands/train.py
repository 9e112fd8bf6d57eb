"""`gmr train`, as people type it.

Knows options and exit codes; everything else is imported once it is asked for. Invariant: as in
`endings`; a signal n ends with 128 + n, after the state was saved.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from model_store.commands.endings import fail


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or a shipped one: gmr-3b, gmr-7b, ablation, gmr-tiny, tiny."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as lora.rank=8; may be repeated."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check configuration and data, and train nothing.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw what the run has logged so far, and train nothing.")
    ] = False,
) -> None:
    """Train a LoRA adapter; a run that was interrupted goes on.

    Several processes: torchrun -m model_store.training CONFIG."""
    from model_store.training.config import TrainingError, load_config
    from model_store.training.data.rows import DataError

    try:
        settings = load_config(config, overrides or ())
        if plot:
            from model_store.training.plots import draw

            typer.echo(draw(settings.output))
            return
        from model_store.training import train as job
        from model_store.training.loop import Stopped

        if check:
            typer.echo(f"{job.check(settings)} examples, and nothing is wrong with them.")
            return
        try:
            run = job.train(settings)
        except Stopped as stopped:
            typer.echo(str(stopped), err=True)
            raise typer.Exit(stopped.exit_code) from None
        if os.environ.get("RANK", "0") == "0":  # torchrun's name for the process that leads
            typer.echo(run)
    except (TrainingError, DataError) as error:
        fail(str(error))
