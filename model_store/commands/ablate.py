"""`gmr ablate`: its options.

Does not depend on what is compared; what it runs is imported when it runs. Invariant: exit codes as
in `console`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_store.commands.console import refusing
from model_store.commands.options import Device
from model_store.commands.publish import expect_base

if TYPE_CHECKING:
    from model_store.training.precision import Asked, Precision


def register(app: typer.Typer) -> None:
    """Add `gmr ablate`."""
    app.command("ablate")(ablate)


def ablate(
    *,
    base: Annotated[
        str,
        typer.Option(help="The base: a name that ships, or a folder, such as build/gmr-tiny/base."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Folder of rows, runs and results; a result that exists is not computed again."
        ),
    ],
    only: Annotated[
        str | None, typer.Option(help="Comparisons to run, such as w-d,weights; default: all.")
    ] = None,
    forget: Annotated[
        int,
        typer.Option(
            help="Reset so many of the last language layers, for a base that answers already.",
            min=0,
            max=64,
        ),
    ] = 0,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.", min=1, max=30)] = 3,
    steps: Annotated[int, typer.Option(help="Steps of a run.", min=1, max=100_000)] = 60,
    examples: Annotated[
        int, typer.Option(help="Queries per step, each with its documents.", min=1, max=4096)
    ] = 4,
    rate: Annotated[
        float,
        typer.Option(help="Learning rate; the paper's 1e-4 is for a large base.", min=1e-9, max=1),
    ] = 2e-3,
    queries: Annotated[int, typer.Option(help="Held-out queries per cell.", min=3, max=200)] = 10,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option(help="Precision of frozen weights and products; auto: by the machine."),
    ] = "auto",
    device: Annotated[Device, typer.Option(help="Device to train on.")] = "auto",
    shared_prefix: Annotated[
        bool,
        typer.Option(
            "--shared-prefix", help="Compute a query once a group, as batch.shared_prefix does."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for ablations.md, its JSON and images/; default: --output."),
    ] = None,
    beside: Annotated[
        bool,
        typer.Option(
            "--beside", help="Keep the report that is there, and show this plan beside it."
        ),
    ] = False,
) -> None:
    """Run the paper's comparisons of losses on a small base, beside the paper's numbers."""
    expect_base(base)
    from model_store.checkpoint import resolve
    from model_store.errors import DataError
    from model_store.evaluation.results import ResultsUnusable
    from model_store.manifest import CheckpointUnusable
    from model_store.recipes.ablations.forget import forgetful
    from model_store.recipes.ablations.plan import AblationPlan, chosen
    from model_store.recipes.ablations.report import publish
    from model_store.recipes.ablations.run import run
    from model_store.training.config import TrainingError
    from model_store.training.publish.pairs import PublishRefused
    from model_store.training.signals import Stopped

    with refusing(usage=(TrainingError,)):
        comparisons = chosen(only)

    errors = (CheckpointUnusable, DataError, PublishRefused, ResultsUnusable, TrainingError)
    with refusing(Stopped, *errors):
        checkpoint = resolve(base)
        if forget:
            checkpoint = forgetful(checkpoint, forget, output / f"base-{forget}")
        settled = _settle(precision, device)
        plan = AblationPlan(
            checkpoint,
            output,
            comparisons,
            seeds,
            steps,
            examples,
            rate,
            queries,
            settled,
            device,
            shared_prefix,
        )
        typer.echo(publish(run(plan, _print), report or output, beside=beside))


def _settle(precision: Asked, device: str) -> Precision:
    """The precision that this machine trains in; prints the warning that comes with it, if any."""
    import torch

    from model_store.training.precision import choose_precision

    on_gpu = device != "cpu" and torch.cuda.is_available()
    settled, warning = choose_precision(precision, "cuda" if on_gpu else "cpu")
    if warning:
        _print(warning)
    return settled


def _print(line: str) -> None:
    typer.echo(line, err=True)
