"""`gmr data`: check, split and mix training rows, and write a sample of them.

Knows options; everything else is imported once it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model_store.commands.console import COULD_NOT, Images, Keep, Seed, counting, finite, refusing

MAX_SCALE = 1_000.0

Source = Annotated[Path, typer.Argument(help="Rows in our form, .jsonl (or .jsonl.gz).")]

_MINE_BEFORE = (
    "Held-out documents are among the negatives: `gmr data split` takes them out, so mine before"
    " it, not after."
)

data = typer.Typer(name="data", no_args_is_help=True, help="Check, split and mix training rows.")


@data.command()
def sample(
    folder: Annotated[
        Path, typer.Argument(help="The folder to write; it must not be there, or be empty.")
    ],
) -> None:
    """Write 24 rows with pictures, and the corpus to mine, as docs/training.md describes them."""
    with refusing():
        from model_store.training.sample import write_sample

        rows, documents, images = write_sample(folder)
        typer.echo(f"{rows} rows, {documents} documents and {images} images")
        typer.echo(f"Written to {folder}: rows.jsonl, rows.corpus.jsonl and images/")


@data.command()
def check(
    source: Source,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image to its end, not its header alone.")
    ] = False,
    held_out: Annotated[
        Path | None, typer.Option(help="Held-out rows, none of which SOURCE may show.")
    ] = None,
) -> None:
    """Say everything that is wrong with training rows."""
    with refusing():
        from model_store.training.data.splits import leaks
        from model_store.training.data.validation import check as find_problems

        with counting("rows") as progress:
            report = find_problems(source, decode=decode, progress=progress)
        counts = (
            f"{report.rows} rows, {report.images} images, negatives: {report.hard} hard,"
            f" {report.random} random"
        )
        typer.echo(f"{counts}; {report.without_negatives} rows have none.")
        lines, total = report.problems, report.wrong
        if held_out is not None and not total:
            found = leaks(source, held_out)
            lines, total = found.places, found.total
            if found.negatives:
                typer.echo(_MINE_BEFORE, err=True)
        for line in lines:
            typer.echo(line, err=True)
        if total:
            shown = ", of which the first are shown" if total > len(lines) else ""
            typer.echo(f"{total} problem{'s' if total > 1 else ''}{shown}.", err=True)
            raise typer.Exit(COULD_NOT)


@data.command()
def split(
    source: Source,
    train: Annotated[Path, typer.Argument(help="Where rows for training go.")],
    dev: Annotated[Path, typer.Argument(help="Where held-out rows go.")],
    share: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, callback=finite, help="The part of the queries that is held out."
        ),
    ] = 0.02,
    images: Images = Keep.link,
    seed: Seed = 0,
) -> None:
    """Split rows by their queries, so that nothing held out is seen in training."""
    with refusing():
        from model_store.training.data.splits import split as divide

        done = divide(source, train, dev, share=share, seed=seed, keeping=images.value)
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
        typer.Option("--source", help="TASK/DATASET=FILE, as T-IT/WebQA=webqa.jsonl; repeated."),
    ],
    scale: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=MAX_SCALE,
            callback=finite,
            help="Each task's number in table 7, times this.",
        ),
    ] = 1.0,
    images: Images = Keep.link,
    seed: Seed = 0,
    partial: Annotated[
        bool, typer.Option("--partial", help="Allow that data sets are missing.")
    ] = False,
) -> None:
    """Draw the paper's training mixture from converted files."""
    with refusing():
        from model_store.training.data.mixture import mix as draw
        from model_store.training.data.mixture import sources_of

        parts = sources_of(sources)
        drawn = draw(parts, out, scale=scale, seed=seed, partial=partial, keeping=images.value)
        for part, rows in drawn.rows.items():
            others = drawn.of_other_tasks[part]
            left = f" ({others} rows of its file are of another task)" if others else ""
            typer.echo(f"{'/'.join(part)}: {rows} rows{left}")
        for task, missing in drawn.short.items():
            typer.echo(f"{task}: {missing} rows short of the paper's number", err=True)
