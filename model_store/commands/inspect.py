"""`gmr models inspect`: a model's description for people or as JSON, and golden pairs for it.

Does not depend on networks; what it runs is imported when it runs. Invariant: exit codes as in
`console`; no character of a folder's files reaches a terminal as a control character.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_store.commands.console import fail, misuse, progress, refusing
from model_store.commands.options import Cache, Family, Registry, Revision

if TYPE_CHECKING:
    from model_store.checkpoint import Checkpoint
    from model_store.inspection.inspection import Inspection
    from model_store.inspection.prompts import ShownPrompt

_MAX_PAIRS = 256
_HIDDEN_CHARACTERS = 16_000
"""Characters of a shown prompt from which on it is cut."""

Inspected = Annotated[
    str,
    typer.Argument(
        help="A name that ships, a folder, NAME@production, or the id of a hub model.",
        metavar="FOLDER|HUB-ID",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the description as JSON.")]
Golden = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=_MAX_PAIRS,
        metavar="N",
        help=(
            "Score N generated pairs with this machine's transformers in fp32, and write them with"
            " a manifest into the folder: a worker then checks them at its start."
        ),
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="With --golden: a new folder, which gets links to the model's files.", metavar="FOLDER"
    ),
]
ReferenceDevice = Annotated[
    Literal["cpu", "cuda"], typer.Option(help="With --golden: where pairs are scored.")
]


def inspect(
    model: Inspected,
    *,
    revision: Revision = None,
    family: Family = None,
    golden: Golden = None,
    output: Output = None,
    device: ReferenceDevice = "cpu",
    as_json: AsJson = False,
    registry: Registry = None,
    cache: Cache = None,
) -> None:
    """Describe a model as `gmr serve` would serve it: family, prompt, scores, limits and files."""
    if output is not None and golden is None:
        misuse("--output needs --golden.")
    from model_store.inspection.inspection import find, inspect_checkpoint
    from model_store.manifest import CheckpointUnusable

    with refusing(CheckpointUnusable):
        checkpoint = find(model, revision=revision, cache=cache, registry=registry, family=family)
        if golden is not None:
            if output is None and not Path(model).is_dir():
                fail(f"{model} is no folder of yours: --golden needs --output.")
            checkpoint = _make_golden(checkpoint, golden, output, device)
        inspection = inspect_checkpoint(checkpoint, named=family is not None)

    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(inspection), indent=2))
    else:
        _show(inspection)


def _make_golden(
    checkpoint: Checkpoint, count: int, output: Path | None, device: Literal["cpu", "cuda"]
) -> Checkpoint:
    """Score pairs and write them; returns the checkpoint that has them."""
    from model_store.inspection.golden_pairs import (
        questions,
        refuse_unless_open,
        score_all,
        write,
    )
    from model_store.inspection.reference import open_reference
    from model_store.training.publish.pairs import PublishRefused

    with refusing(PublishRefused):
        refuse_unless_open(checkpoint, output)
        pairs = questions(checkpoint.family, count)
        reference = open_reference(checkpoint, device)
        with progress("scoring golden pairs", len(pairs), unit="pairs") as advance:
            scored = score_all(reference, pairs, advance)
        written = write(checkpoint, scored, reference.way, output)
    typer.echo(f"{len(scored)} golden pairs by {reference.way} are in {written.folder}.", err=True)
    return written


def _show(inspection: Inspection) -> None:
    """Print a description: a table on a terminal, and lines elsewhere."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    rows = [(label, _printable(value)) for label, value in _rows(inspection)]
    prompts = [
        (_title(shown, inspection), _printable(shown.text, lines=True))
        for shown in inspection.prompts
    ]
    if not console.is_terminal:
        for label, value in rows:
            typer.echo(f"{label}: {value}")
        for title, text in prompts:
            typer.echo(f"\n{title}\n{text}")
        return

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, Text(value))
    console.print(table)
    for title, text in prompts:
        console.print(Panel(Text(text), title=title, title_align="left", expand=False))


def _title(prompt: ShownPrompt, inspection: Inspection) -> str:
    title = f"prompt: {prompt.query} and {prompt.document}"
    if inspection.takes_instruction and not prompt.instruction:
        title += ", without an instruction"
    return title


def _rows(shown: Inspection) -> Iterator[tuple[str, str]]:
    """Labels and values, in the order in which people ask for them."""
    yield "model", f"{shown.name} (sha256:{shown.digest[:12]})"
    yield "family", f"{shown.family}: {shown.reason}"
    for family, reason in shown.others.items():
        yield "also fits", f"{family}: {reason}"

    yield "network", shown.architecture
    yield "weights", _weights(shown)
    yield "query", _side(shown.query, shown.max_query_images)
    yield "document", _side(shown.document, shown.max_document_images)
    if images := shown.images:
        yield (
            "images",
            f"{images.min_pixels:,} to {images.max_pixels:,} pixels in cells of {images.cell} x"
            f" {images.cell}, {images.max_tokens:,} tokens at most",
        )
    yield "tokens of a pair", f"{shown.max_tokens:,}"

    instruction = shown.default_instruction or "none by default"
    yield "instruction", instruction if shown.takes_instruction else "the prompt has no place"
    yield "read-out", shown.read_out
    yield "transform", shown.transform
    yield "cacheable side", shown.cacheable_side
    for engine, refusal in shown.engines.items():
        yield f"engine {engine}", refusal or "yes"

    yield "golden pairs", str(shown.golden_pairs or "none: a worker skips its check at the start")
    total = sum(shown.files.values())
    yield "files", f"{len(shown.files)}, {total / 1e6:,.1f} MB"
    for field, value in shown.assumed.items():
        yield "assumed", f"{field}: {value}"


def _weights(shown: Inspection) -> str:
    weights = shown.weights
    if weights is None:
        return f"not here ({shown.weights_refusal})"
    dtypes = weights.quantised or ", ".join(weights.dtypes)
    return (
        f"{weights.parameters / 1e6:,.1f} M parameters, {dtypes}, {weights.bytes / 1e6:,.1f} MB in"
        f" {weights.files} {'file' if weights.files == 1 else 'files'}"
    )


def _side(kinds: tuple[str, ...], most: int | None) -> str:
    listed = ", ".join(kinds)
    reads_images = any("image" in kind for kind in kinds)
    return f"{listed} ({most} in an item)" if reads_images and most is not None else listed


def _printable(text: str, *, lines: bool = False) -> str:
    """A text without control characters, which would be commands to a terminal; long ones are
    cut."""
    shown = []
    for character in text[:_HIDDEN_CHARACTERS]:
        is_shown = character.isprintable() or (lines and character == "\n")
        shown.append(character if is_shown else character.encode("unicode_escape").decode())
    return "".join(shown)
