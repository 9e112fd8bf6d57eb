"""`gmr train`: its options.

Does not depend on how a network is trained; what it runs is imported when it runs. Invariant: exit
codes as in `console`; after signal n the state is saved, and the exit code is 128 + n.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from model_store.commands.console import refusing


def register(app: typer.Typer) -> None:
    """Add `gmr train`."""
    app.command("train")(train)


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or a shipped one: gmr-3b, gmr-7b, ablation, gmr-tiny, tiny,"
            " erank-4b-sft, erank-4b-grpo, erank-tiny-sft, erank-tiny-grpo."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, such as lora.rank=8; may be repeated."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check configuration and data, without training.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the curves of the run so far, without training.")
    ] = False,
) -> None:
    """Train a LoRA adapter, also in ERank's two stages; an interrupted run continues.

    Several processes: torchrun -m model_store.training CONFIG."""
    from model_store.errors import DataError
    from model_store.training.config import TrainingError
    from model_store.training.methods import load_run, method_of

    with refusing(TrainingError, DataError):
        settings = load_run(config, overrides or ())
        method = method_of(settings)
        if plot:
            typer.echo(method.draw(settings.output))
            return

        from model_store.training.signals import Stopped

        if check:
            count = method.check(settings)
            typer.echo(f"{count} {method.counted}, and nothing is wrong with them.")
            return

        with refusing(Stopped):  # its own exit code
            run = method.train(settings)
        if os.environ.get("RANK", "0") == "0":  # torchrun numbers the processes
            typer.echo(run)
