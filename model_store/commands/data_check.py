"""`gmr data check`: faults, which end the command with 1, and doubts, which do not.

Does not depend on how either is found; what it runs is imported when it runs. Invariant: faults go
to standard error, one a line with file and line, and all else to standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import FAILED, progress, refusing
from model_store.commands.options import Source

if TYPE_CHECKING:
    from model_store.training.data.doubts.doubt import Doubt
    from model_store.training.data.doubts.lengths import TokenCounts
    from model_store.training.data.doubts.scores import Rows, Scorer
    from model_store.training.data.doubts.survey import OpenScorer, Survey
    from model_store.training.negatives.opening import Choice

MAX_SAMPLE = 100_000
_MINE_BEFORE = (
    "Held-out documents are among the negatives: `gmr data split` takes them out, so mine before"
    " it, not after."
)


def check(
    source: Source,
    *,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image, not those of the sample alone.")
    ] = False,
    held_out: Annotated[
        Path | None, typer.Option(help="Held-out rows; none of them may be among SOURCE.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model whose tokens are counted: a name that ships, a folder, a name."),
    ] = None,
    retriever: Annotated[
        str,
        typer.Option(
            help="Retriever that looks for relevant negatives: bm25, dense (sentence-transformers),"
            " gme, gme-vllm, or none."
        ),
    ] = "bm25",
    retriever_model: Annotated[
        str | None, typer.Option(help="Model of the retriever: a folder or a hub id.")
    ] = None,
    sample: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_SAMPLE,
            help="Rows, evenly spaced, whose texts are compared, whose pictures are decoded, and"
            " that tokenizer and retriever read.",
        ),
    ] = 5_000,
    report: Annotated[
        Path | None, typer.Option(help="Write a report, FILE.html or FILE.md.", metavar="FILE")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 on a doubt, too.")] = False,
) -> None:
    """List every problem of training rows, and what is doubtful about them."""
    from model_store.errors import DataError, WrongUsage

    with refusing(DataError, usage=(WrongUsage,)):
        from model_store.training.data.doubts.survey import Options, survey
        from model_store.training.negatives.opening import Choice

        choice = Choice(retriever, retriever_model)
        choice.check()
        if report is not None:
            from model_store.training.data.report.writing import check_report

            check_report(report, [source, *filter(None, [held_out])])
        tokens = None if model is None else _token_counts(model)
        options = Options(decode, held_out, sample, tokens, _scorer_of(choice))

        with progress("checking", unit="rows") as advance:
            found = survey(source, options, advance)
        _print_figures(found)
        _print_doubts(found)
        _print_faults(found)
        if report is not None:
            from model_store.training.data.report.writing import write_report

            write_report(found, report)
            typer.echo(f"Written to {report}")

    if found.wrong or (strict and found.doubts):
        raise typer.Exit(FAILED)


def _token_counts(model: str) -> TokenCounts:
    from model_store.checkpoint import resolve
    from model_store.manifest import CheckpointUnusable
    from model_store.training.data.doubts.lengths import TokenCounts

    with refusing(CheckpointUnusable):
        checkpoint = resolve(model)
        return TokenCounts(
            checkpoint.family, checkpoint.manifest.default_instruction, checkpoint.name
        )


def _scorer_of(choice: Choice) -> OpenScorer | None:
    """A function that opens the retriever over some rows; None for the retriever none."""
    if choice.name == "none":
        return None

    def opened(rows: Rows) -> Scorer:
        if choice.name == "bm25":
            from model_store.training.data.doubts.word_scores import WordScorer

            return WordScorer(rows)

        from model_store.training.data.doubts.scores import VectorScorer
        from model_store.training.negatives.opening import open_embedder

        return VectorScorer(rows, open_embedder(choice), choice.name)

    return opened


def _print_figures(found: Survey) -> None:
    report = found.report
    typer.echo(
        f"{report.rows} rows, {report.images} images, negatives: {report.hard} hard,"
        f" {report.random} random; {report.without_negatives} rows have none."
    )
    for note in found.notes:
        typer.echo(note)


def _print_doubts(found: Survey) -> None:
    for doubt in found.doubts:
        typer.echo(f"doubt: {doubt.amount}. {doubt.sentence}{_places(found.path, doubt)}")
    if not found.doubts and found.statistics.rows:
        typer.echo("No doubts.")
    if found.size_command is not None:
        typer.echo(f"To plan the run: {found.size_command}")


def _places(path: Path, doubt: Doubt) -> str:
    """The lines of a doubt's first places, each once."""
    if not doubt.places:
        return ""
    lines = dict.fromkeys(place.line for place in doubt.places)
    more = doubt.count - len(doubt.places)
    left = f" and {more:,} more" if more > 0 else ""
    return f" {path}:{', '.join(map(str, lines))}{left}"


def _print_faults(found: Survey) -> None:
    """Each fault, and how many there are."""
    if found.leaks is not None and found.leaks.negatives:
        typer.echo(_MINE_BEFORE, err=True)
    lines = found.faults
    for line in lines:
        typer.echo(line, err=True)
    if found.wrong:
        shown = ", of which the first are shown" if found.wrong > len(lines) else ""
        typer.echo(f"{found.wrong} problem{'s' if found.wrong > 1 else ''}{shown}.", err=True)
