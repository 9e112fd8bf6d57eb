"""`gmr eval`: a checkpoint on the generated nine cells or on rows of a file, for the gate of `gmr
models promote`.

Knows the command line alone. Invariant: results are written whole or not at all, and a file that
could not be written is said before anything is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_store.commands.endings import check_writable, fail, misuse

if TYPE_CHECKING:
    from model_store.checkpoint import Checkpoint
    from model_store.evaluation.results import Results
    from model_store.training.benchmark import Measured

MAX_QUERIES = 2000
_QUERIES = 50


def register(app: typer.Typer) -> None:
    """Add `gmr eval`."""
    app.command("eval")(evaluate)


Model = Annotated[
    str,
    typer.Argument(
        help="A name that ships, a folder with a manifest, NAME@production, NAME@sha256:..."
    ),
]
Queries = Annotated[
    int | None,
    typer.Option(help=f"Generated queries a cell; default: {_QUERIES}.", min=3, max=MAX_QUERIES),
]
RowsFile = Annotated[
    Path | None,
    typer.Option(help="Measure on the rows of this file instead, in training's format."),
]
Metric = Annotated[
    Literal["ndcg@10", "hit@1", "hit@5", "hit@10"],
    typer.Option(help="Of --rows: what is written; all are shown."),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Of --rows: where to score.")]


def evaluate(
    model: Model,
    output: Annotated[Path, typer.Argument(help="Where the results go, as JSON.")],
    *,
    queries: Queries = None,
    rows: RowsFile = None,
    metric: Metric = "ndcg@10",
    device: Device = "auto",
    registry: Annotated[
        str | None, typer.Option(envvar="RERANK_REGISTRY", help="Folder or URL of the registry.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(envvar="RERANK_MODEL_CACHE", help="Where pulled models are kept.")
    ] = None,
) -> None:
    """Measure a checkpoint, query by query: on generated queries, or on rows of your own."""
    from model_store.checkpoint import resolve
    from model_store.evaluation.results import ResultsUnusable, write_results
    from model_store.manifest import CheckpointUnusable
    from model_store.training.data.rows import DataError

    if rows is not None and queries is not None:
        misuse("Give --queries for generated queries or --rows for those of a file, not both.")
    check_writable(output)
    try:
        checkpoint = resolve(model, cache=cache, registry=registry)
        if rows is None:
            results = _on_cells(checkpoint, queries or _QUERIES)
            write_results(output, results)
            _tell_cells(results)
        else:
            measured = _on_rows(checkpoint, rows, device)
            write_results(output, measured.results(metric))
            _tell_rows(measured)
    except (CheckpointUnusable, DataError, ResultsUnusable) as refusal:
        fail(str(refusal))


def _on_cells(checkpoint: Checkpoint, queries: int) -> Results:
    from model_store.commands.models import moving
    from model_store.recipes.tiny import heldout
    from model_store.synthetic import cells

    with moving(f"measuring {checkpoint.name}", len(cells.CELLS), unit="cells") as tell:
        return heldout.evaluate(checkpoint, queries, told=lambda cell: tell(1))


def _on_rows(checkpoint: Checkpoint, path: Path, device: str) -> Measured:
    import torch

    from model_store.commands.models import moving
    from model_store.training.benchmark import Rows, measure

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not on_gpu:
        fail("--device is cuda, but this machine has no usable GPU.")
    rows = Rows(path, checkpoint)
    with moving(f"measuring {checkpoint.name}", len(rows), unit="rows") as tell:
        return measure(checkpoint, rows, device="cuda" if on_gpu else "cpu", told=tell)


def _tell_cells(results: Results) -> None:
    for cell, values in results.datasets.items():
        typer.echo(f"{cell:6} {results.metric} {sum(values.values()) / len(values):.4f}")
    typer.echo(f"mean   {results.metric} {results.score:.4f}")


def _tell_rows(measured: Measured) -> None:
    """Every metric's mean over the rows, and over those of each kind of query and document."""
    kinds = sorted(set(measured.kinds.values()))
    for metric, values in measured.values.items():
        parts = [f"{metric:8} {sum(values.values()) / len(values):.4f}"]
        for kind in kinds if len(kinds) > 1 else ():
            of_kind = [value for query, value in values.items() if measured.kinds[query] == kind]
            parts.append(f"{kind} {sum(of_kind) / len(of_kind):.4f}")
        typer.echo("  ".join(parts))
    typer.echo(f"{len(measured.kinds)} rows, benchmark {measured.benchmark}")
