"""The terminal of a ranking: a table, lines for another program, or JSON; and a sign of life.

Does not depend on HTTP. Invariant: no character of a document or of a file's name controls the
terminal.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from service.cli.client.thumbnails import COLUMNS, thumbnail
from service.cli.documents.items import Document, lower_first

_MAX_SHOWN_CHARS = 240
"""Characters of a text in the table."""
_MAX_LISTED_ERRORS = 20
_DIRECTION = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that reverse what is shown around them."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_COLUMNS = 20


def printable(text: str) -> str:
    """A text on one line, without characters that control a terminal or the direction of text."""
    kept = []
    for character in " ".join(text.split()):
        controls = unicodedata.category(character) in ("Cc", "Cs") or character in _DIRECTION
        kept.append("\N{REPLACEMENT CHARACTER}" if controls else character)
    return "".join(kept)


def waiting(title: str) -> AbstractContextManager[object]:
    """A sign of life on standard error, if it is a terminal."""
    console = Console(stderr=True)
    return console.status(title) if console.is_terminal else nullcontext()


def print_json(answer: Mapping[str, Any]) -> None:
    """The answer as JSON in UTF-8."""
    typer.echo((json.dumps(answer, ensure_ascii=False, indent=2) + "\n").encode(), nl=False)


def print_lines(answer: Mapping[str, Any], documents: Sequence[Document]) -> None:
    """A line for each result: score, logit, name and text, separated by tabs."""
    for result in answer["results"]:
        document = documents[result["index"]]
        cells = (
            f"{result['relevance_score']:.4f}",
            f"{result['logit']:.4f}",
            str(result.get("id", result["index"])),
            document.text,
        )
        typer.echo("\t".join(map(printable, cells)).encode("utf-8", "replace"))


def print_table(
    console: Console,
    answer: Mapping[str, Any],
    documents: Sequence[Document],
    *,
    pictures: bool,
) -> None:
    """A table of the results, and a line about all documents."""
    results = answer["results"]
    thumbnails = [thumbnail(documents[each["index"]]) if pictures else None for each in results]
    has_pictures = any(thumbnails)
    has_probability = any("probability" in each for each in results)

    table = Table(box=None, header_style="dim", padding=(0, 1), expand=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("score", no_wrap=True)
    table.add_column("logit", justify="right", no_wrap=True)
    if has_probability:
        table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("document", overflow="fold")
    if has_pictures:
        table.add_column("", width=COLUMNS, no_wrap=True)
    for rank, (result, picture) in enumerate(zip(results, thumbnails, strict=True), 1):
        table.add_row(
            str(rank),
            ScoreBar(result["relevance_score"]),
            f"{result['logit']:.2f}",
            *([_percent(result)] if has_probability else []),
            _described(result, documents[result["index"]]),
            *([Padding(picture, (0, 0, 1, 0)) if picture else ""] if has_pictures else []),
        )
    if results:
        console.print(table)
    console.print(_summary(answer, len(documents), len(results)), style="dim", highlight=False)


def print_errors(answer: Mapping[str, Any], documents: Sequence[Document]) -> None:
    """A line on standard error for each document that has no score, up to a bound."""
    errors = answer["errors"]
    for error in errors[:_MAX_LISTED_ERRORS]:
        name = documents[error["index"]].name
        message = str(error["message"]).removeprefix(f"documents[{error['index']}]").lstrip(":. ")
        typer.echo(f"{printable(name)}: {printable(lower_first(message))}", err=True)
    if len(errors) > _MAX_LISTED_ERRORS:
        typer.echo(f"... and {len(errors) - _MAX_LISTED_ERRORS} more.", err=True)
    if errors:
        typer.echo(f"{_count(len(errors), len(documents))} no score.", err=True)


class ScoreBar:
    """A probability as a bar and a number."""

    def __init__(self, score: float) -> None:
        self._score = score

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(min(options.max_width - 6, _BAR_COLUMNS), 1)
        share = min(max(self._score, 0.0), 1.0)
        if options.ascii_only:
            bar = "#" * round(share * width)
        else:
            whole, eighths = divmod(round(share * width * 8), 8)
            bar = "█" * whole + (_EIGHTHS[eighths] if eighths else "")
        yield Segment(bar.ljust(width), console.get_style(_colour(share)))
        yield Segment(f" {self._score:.3f}")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(12, _BAR_COLUMNS + 6)


def _colour(share: float) -> str:
    if share >= 0.5:
        return "green"
    return "yellow" if share >= 0.1 else "bright_black"


def _described(result: Mapping[str, Any], document: Document) -> Text:
    """A document's id and the beginning of its text."""
    described = Text(overflow="fold")
    identifier = result.get("id")
    if identifier is not None:
        described.append(printable(str(identifier)), style="bold")
    if document.text:
        text = printable(document.text[: 2 * _MAX_SHOWN_CHARS])
        cut = f"{text[:_MAX_SHOWN_CHARS]}..." if len(text) > _MAX_SHOWN_CHARS else text
        described.append("\n" if described else "").append(cut)
    if not described:
        described.append(printable(document.name), style="italic")
    return described


def _percent(result: Mapping[str, Any]) -> str:
    """A result's probability; empty where its answer had none."""
    probability = result.get("probability")
    return "" if probability is None else f"{probability:.1%}"


def _summary(answer: Mapping[str, Any], documents: int, shown: int) -> str:
    tokens = answer["usage"].get("total_tokens", 0)
    parts = [f"{documents:,} document{'s' if documents != 1 else ''}"]
    left_out = documents - len(answer["errors"]) - shown
    if left_out:
        parts.append(f"{left_out:,} not shown (--top, --min-score)")
    parts.append(f"{tokens:,} tokens")
    cached = answer["meta"].get("cached_pairs", 0)
    if cached:
        parts.append(f"{cached:,} cached")
    if answer["model"]:
        parts.append(printable(answer["model"]))
    return ", ".join(parts)


def _count(some: int, all_of_them: int) -> str:
    """Some of all documents, as the subject of a sentence that ends with `no score`."""
    verb = "has" if some == 1 else "have"
    return f"{some:,} of {all_of_them:,} document{'s' if all_of_them != 1 else ''} {verb}"
