"""`gmr ablate`, as people type it. Knows options and exit codes; everything else is imported once
it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_store.commands.endings import fail, misusing
from model_store.commands.publish import expect_base

if TYPE_CHECKING:
    from model_store.training.precision import Asked, Precision


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ablate")(ablate)


def ablate(
    *,
    base: Annotated[
        str,
        typer.Option(
            help="What is trained on: a name that ships, or a folder, such as build/gmr-tiny/base."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Folder of rows, runs and results; a result that is there is not made again."
        ),
    ],
    only: Annotated[
        str | None, typer.Option(help="Comparisons, such as w-d,weights; default: all.")
    ] = None,
    forget: Annotated[
        int,
        typer.Option(
            help="Language layers, the last ones, to make anew where the base answers already.",
            min=0,
            max=64,
        ),
    ] = 0,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.", min=1, max=30)] = 3,
    steps: Annotated[int, typer.Option(help="Steps of a run.", min=1, max=100_000)] = 60,
    examples: Annotated[
        int, typer.Option(help="Queries of a step, each with its documents.", min=1, max=4096)
    ] = 4,
    rate: Annotated[
        float,
        typer.Option(help="Learning rate: the paper's 1e-4 is for a large base.", min=1e-9, max=1),
    ] = 2e-3,
    queries: Annotated[int, typer.Option(help="Held-out queries a cell.", min=3, max=200)] = 10,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option(help="Of frozen weights and products; auto: by the machine."),
    ] = "auto",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")
    ] = "auto",
    report: Annotated[
        Path | None,
        typer.Option(help="Folder of ablations.md, its JSON and images/; default: --output."),
    ] = None,
) -> None:
    """Run the paper's comparisons of losses on a small base, beside the paper's numbers."""
    expect_base(base)
    from model_store.checkpoint import resolve
    from model_store.evaluation.results import ResultsUnusable
    from model_store.manifest import CheckpointUnusable
    from model_store.recipes.ablations.forget import forgetful
    from model_store.recipes.ablations.plan import Plan, chosen
    from model_store.recipes.ablations.report import publish
    from model_store.recipes.ablations.run import run
    from model_store.training.config import TrainingError
    from model_store.training.data.rows import DataError
    from model_store.training.loop import Stopped
    from model_store.training.publish.pairs import PublishRefused

    with misusing(TrainingError):
        groups = chosen(only)
    try:
        checkpoint = resolve(base)
        if forget:
            checkpoint = forgetful(checkpoint, forget, output / f"base-{forget}")
        settled = _settled(precision, device)
        plan = Plan(
            checkpoint, output, groups, seeds, steps, examples, rate, queries, settled, device
        )
        typer.echo(publish(run(plan, _tell), report or output))
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(stopped.exit_code) from None
    except (CheckpointUnusable, DataError, PublishRefused, ResultsUnusable, TrainingError) as error:
        fail(str(error))


def _settled(precision: Asked, device: str) -> Precision:
    """What `auto` comes to on this machine, said where there is something to say."""
    import torch

    from model_store.training.precision import settle

    settled, said = settle(
        precision, "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    )
    if said:
        _tell(said)
    return settled


def _tell(line: str) -> None:
    typer.echo(line, err=True)
