"""`gmr data`: split and mix training rows, and write a sample of them.

Does not depend on what a row holds; what it runs is imported when it runs. Invariant: exit codes as
in `console`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from model_store.commands.console import refusing
from model_store.commands.data_check import check
from model_store.commands.options import ImageModeOption, Images, Seed, Source, finite

MAX_SCALE = 1_000.0

data = typer.Typer(name="data", no_args_is_help=True, help="Check, split and mix training rows.")
data.command()(check)


@contextmanager
def refusing_data() -> Iterator[None]:
    """Exit with one sentence where data cannot be used, or options do not fit together."""
    from model_store.errors import DataError, WrongUsage

    with refusing(DataError, usage=(WrongUsage,)):
        yield


@data.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="The folder to write; it must be new or empty.")],
) -> None:
    """Write 24 rows with pictures, and the corpus to mine, as docs/training-rows.md describes."""
    with refusing_data():
        from model_store.training.sample import write_sample

        rows, documents, images = write_sample(folder)
        typer.echo(f"{rows} rows, {documents} documents and {images} images")
        typer.echo(f"Written to {folder}: rows.jsonl, rows.corpus.jsonl and images/")


@data.command()
def split(
    source: Source,
    train: Annotated[Path, typer.Argument(help="File for training rows.")],
    dev: Annotated[Path, typer.Argument(help="File for held-out rows.")],
    share: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="Share of the queries that is held out."
        ),
    ] = 0.02,
    images: Images = ImageModeOption.link,
    seed: Seed = 0,
) -> None:
    """Split rows by their queries, so that nothing held out is seen in training."""
    with refusing_data():
        from model_store.training.data.splits import split as split_rows

        done = split_rows(source, train, dev, share=share, seed=seed, image_mode=images.value)
        typer.echo(
            f"{done.train} rows for training, {done.dev} held out; {done.left_out} left out, since"
            " they would leak;"
        )
        typer.echo(
            f"{done.negatives_taken_out} negatives taken out of training rows for the same reason."
        )


@data.command()
def mix(
    out: Annotated[Path, typer.Argument(help="The .jsonl file to write.")],
    sources: Annotated[
        list[str],
        typer.Option(
            "--source", help="TASK/DATASET=FILE, such as T-IT/WebQA=webqa.jsonl; repeated."
        ),
    ],
    scale: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=MAX_SCALE,
            callback=finite,
            help="Multiplies each task's number of rows in table 7.",
        ),
    ] = 1.0,
    images: Images = ImageModeOption.link,
    seed: Seed = 0,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept that data sets are missing.")
    ] = False,
) -> None:
    """Draw the paper's training mixture from converted files."""
    with refusing_data():
        from model_store.training.data.mixture import mix as draw_mixture
        from model_store.training.data.mixture import parse_sources

        drawn = draw_mixture(
            parse_sources(sources),
            out,
            scale=scale,
            seed=seed,
            partial=partial,
            image_mode=images.value,
        )
        for part, rows in drawn.rows.items():
            others = drawn.of_other_tasks[part]
            left_out = f" ({others} rows of its file are of another task)" if others else ""
            typer.echo(f"{'/'.join(part)}: {rows} rows{left_out}")
        for task, missing in drawn.short.items():
            typer.echo(f"{task}: {missing} rows short of the paper's number", err=True)
