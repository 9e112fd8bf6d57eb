"""`gmr convert` and `gmr data`, as people type them.

Knows options and exit codes; everything else is imported once it is asked for. Invariant: what is wrong with data ends with one
sentence and status 2, and problems that a check finds with status 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from model_store.training.converters.assemble import Converted

REFUSED, PROBLEMS = 2, 1


class Keeping(StrEnum):
    """What becomes of a picture's file."""

    reference = "reference"
    copy = "copy"
    link = "link"


Out = Annotated[Path, typer.Argument(help="The .jsonl file to write; its corpus goes beside it as *.corpus.jsonl.")]
Source = Annotated[Path, typer.Argument(help="Rows in our form, .jsonl (or .jsonl.gz).")]
Told = Annotated[str | None, typer.Option(help="The instruction of every row.")]
Seed = Annotated[int, typer.Option(help="The same seed, the same result.")]

conversions = typer.Typer(name="convert", no_args_is_help=True, help="Public data sets, in their own layouts, to training rows.")
data = typer.Typer(name="data", no_args_is_help=True, help="Check, split and mix training rows.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(conversions)
    app.add_typer(data)


@conversions.command()
def mbeir(
    queries: Annotated[Path, typer.Argument(help="Query rows: qid, query_txt, query_img_path, pos_cand_list, ...")],
    pool: Annotated[Path, typer.Argument(help="Candidate rows: did, txt, img_path, modality.")],
    out: Out,
    *,
    root: Annotated[Path, typer.Option(help="The folder that image paths are relative to.")],
    instructions: Annotated[
        Path | None, typer.Option(help="query_instructions.tsv: each query draws one of its prompts.")
    ] = None,
    images: Annotated[
        Keeping, typer.Option(help="Name images where they lie, copy them beside OUT, or link them.")
    ] = Keeping.reference,
    seed: Seed = 0,
) -> None:
    """Convert M-BEIR's layout."""
    with refusing():
        from model_store.training.converters.mbeir import convert_mbeir

        done = convert_mbeir(queries, pool, out, root=root, instructions=instructions, keeping=images.value, seed=seed)
        _tell(out, *done)


@conversions.command()
def vidore(
    source: Annotated[Path, typer.Argument(help="A folder with corpus, queries and qrels; or rows of query and image.")],
    out: Out,
    instruction: Told = None,
    language: Annotated[str | None, typer.Option(help="Take queries of this language alone.")] = None,
) -> None:
    """Convert ViDoRe's layouts, parquet or JSON lines with image bytes."""
    with refusing():
        from model_store.training.converters.vidore import convert_pages, convert_vidore

        if (source / "qrels").is_dir():
            _tell(out, *convert_vidore(source, out, instruction=instruction, language=language))
        else:
            _tell(out, *convert_pages(source, out, instruction=instruction))


@conversions.command()
def msmarco(
    out: Out,
    collection: Annotated[Path | None, typer.Option(help="collection.tsv")] = None,
    queries: Annotated[Path | None, typer.Option(help="queries.train.tsv")] = None,
    qrels: Annotated[Path | None, typer.Option(help="qrels.train.tsv")] = None,
    triples: Annotated[Path | None, typer.Option(help="triples.train.small.tsv, instead of the three.")] = None,
    instruction: Told = None,
) -> None:
    """Convert MS MARCO's layout."""
    with refusing():
        from model_store.training.converters.msmarco import convert_msmarco, convert_triples
        from model_store.training.data import DataError

        if triples is not None and (collection, queries, qrels) == (None, None, None):
            _tell(out, convert_triples(triples, out, instruction=instruction))
        elif triples is None and collection and queries and qrels:
            _tell(out, *convert_msmarco(collection, queries, qrels, out, instruction=instruction))
        else:
            raise DataError("Give either --triples, or --collection, --queries and --qrels.")


@data.command()
def check(
    source: Source,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image to its end, not its header alone.")] = False,
    held_out: Annotated[Path | None, typer.Option(help="Held-out rows, none of which SOURCE may show.")] = None,
) -> None:
    """Say everything that is wrong with training rows."""
    with refusing():
        from model_store.training.checks import check as find_problems
        from model_store.training.splits import leaks

        with counting("rows") as progress:
            report = find_problems(source, decode=decode, progress=progress)
        counts = f"{report.rows} rows, {report.images} images, negatives: {report.hard} hard, {report.random} random"
        typer.echo(f"{counts}; {report.without_negatives} rows have none.")
        lines, total = report.problems, report.wrong
        if held_out is not None and not total:
            found = leaks(source, held_out)
            lines, total = found.places, found.total
        for line in lines:
            typer.echo(line, err=True)
        if total:
            typer.echo(f"{total} problems{', of which the first are shown' if total > len(lines) else ''}.", err=True)
            raise typer.Exit(PROBLEMS)


@data.command()
def split(
    source: Source,
    train: Annotated[Path, typer.Argument(help="Where rows for training go.")],
    dev: Annotated[Path, typer.Argument(help="Where held-out rows go.")],
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="The part of the queries that is held out.")] = 0.02,
    seed: Seed = 0,
) -> None:
    """Split rows by their queries, so that nothing held out is seen in training."""
    with refusing():
        from model_store.training.splits import split as divide

        done = divide(source, train, dev, share=share, seed=seed)
        typer.echo(f"{done.train} rows for training, {done.dev} held out; {done.left_out} left out, since they would leak;")
        typer.echo(f"{done.negatives_taken_out} negatives taken out of training rows for the same reason.")


@data.command()
def mix(
    out: Out,
    sources: Annotated[list[str], typer.Option("--source", help="TASK/DATASET=FILE, as T-IT/WebQA=webqa.jsonl; repeated.")],
    scale: Annotated[float, typer.Option(min=0.0, help="Each task's number in table 7, times this.")] = 1.0,
    seed: Seed = 0,
    partial: Annotated[bool, typer.Option("--partial", help="Allow that data sets are missing.")] = False,
) -> None:
    """Draw the paper's training mixture from converted files."""
    with refusing():
        from model_store.training.mixture import mix as draw
        from model_store.training.mixture import source_of

        drawn = draw(dict(map(source_of, sources)), out, scale=scale, seed=seed, partial=partial)
        for (task, dataset), rows in drawn.rows.items():
            typer.echo(f"{task}/{dataset}: {rows} rows")
        for task, missing in drawn.short.items():
            typer.echo(f"{task}: {missing} rows short of the paper's number", err=True)


@contextmanager
def refusing() -> Iterator[None]:
    """Data that cannot be used, in one sentence."""
    from model_store.training.data import DataError

    try:
        yield
    except DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(REFUSED) from None


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows how many `what` are done: a bar on a terminal, a line each tenth part or each 100,000 elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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


def _tell(out: Path, *done: Converted) -> None:
    for what, converted in zip(("documents", "examples") if len(done) == 2 else ("examples",), done, strict=True):
        counts = "".join(f"; {reason}: {count}" for reason, count in sorted(converted.counts.items()) if count)
        typer.echo(f"{converted.written} {what}{counts}")
    typer.echo(f"Written to {out}")
