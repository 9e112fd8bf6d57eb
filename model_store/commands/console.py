"""The data commands' shared parts: refusals, progress, and options with their bounds.

Knows a terminal, no data. Invariant: 0 is done, 1 is one sentence on stderr on what could not be
done, 2 is wrong usage, 130 is interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

COULD_NOT, WRONG_USAGE, INTERRUPTED = 1, 2, 130
MAX_SEED = 2**63 - 1


class Keep(StrEnum):
    """The treatment of images outside the folder of the rows that name them."""

    reference = "reference"
    copy = "copy"
    link = "link"


def finite(value: float | None) -> float | None:
    """The number, for an option's callback; NaN passes every bound, so it is refused here."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it must be a number")
    return value


Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="The same seed, the same result.")]
Images = Annotated[
    Keep,
    typer.Option(
        help=(
            "Images outside the written file's folder: link them or copy them into its images/, or"
            " refuse them (reference)."
        )
    ),
]


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what is wrong with data or options into one sentence and an exit code."""
    from model_store.training.data.rows import DataError, WrongUsage

    try:
        yield
    except WrongUsage as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WRONG_USAGE) from None
    except DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(COULD_NOT) from None
    except ModuleNotFoundError as missing:
        if str(missing.name).partition(".")[0] in ("model_store", "service"):
            raise
        typer.echo(f"This needs {missing.name}: pip install 'gmr-rerank[train]'.", err=True)
        raise typer.Exit(COULD_NOT) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show how many `what` are done: a bar on a terminal, elsewhere a line each tenth or each
    100,000."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    every = max(total // 10, 1) if total else 100_000
    said = 0

    def say(done: int) -> None:
        nonlocal said
        if done // every > said:
            said = done // every
            console.print(f"{done}{f' of {total}' if total else ''} {what}")

    yield say
