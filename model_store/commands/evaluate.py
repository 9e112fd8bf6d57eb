"""`gmr eval checkpoint`: a checkpoint on generated queries or on rows of a file, for the gate of
`gmr models promote`.

Does not depend on how scores are computed. Invariant: results are written whole or not at all, and
a file that cannot be written is refused before anything is measured.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_store.commands.console import check_writable, fail, misuse, progress, refusing
from model_store.commands.options import Cache, Device, Family, Model, Registry

if TYPE_CHECKING:
    from model_store.checkpoint import Checkpoint
    from model_store.evaluation.results import Results
    from model_store.training.benchmark import Measured

_MAX_QUERIES = 2000
_QUERIES = 50


def register(app: typer.Typer) -> None:
    """Add `gmr eval checkpoint`, which `gmr eval MODEL OUTPUT` is short for."""
    app.command("checkpoint")(evaluate)


Queries = Annotated[
    int | None,
    typer.Option(help=f"Generated queries per cell; default: {_QUERIES}.", min=3, max=_MAX_QUERIES),
]
RowsFile = Annotated[
    Path | None,
    typer.Option(help="Measure on the rows of this file, which has the form of training rows."),
]
Metric = Annotated[
    Literal["ndcg@10", "hit@1", "hit@5", "hit@10"],
    typer.Option(help="Metric of --rows to write; all are printed."),
]


def evaluate(
    model: Model,
    output: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    *,
    queries: Queries = None,
    rows: RowsFile = None,
    metric: Metric = "ndcg@10",
    device: Annotated[Device, typer.Option(help="Device to score --rows on.")] = "auto",
    registry: Registry = None,
    cache: Cache = None,
    family: Family = None,
) -> None:
    """Measure a checkpoint, query by query: on generated queries, or on rows of your own."""
    from model_store.checkpoint import resolve
    from model_store.errors import DataError
    from model_store.evaluation.results import ResultsUnusable, write_results
    from model_store.manifest import CheckpointUnusable

    if rows is not None and queries is not None:
        misuse("Give --queries for generated queries or --rows for those of a file, not both.")
    check_writable(output)

    with refusing(CheckpointUnusable, DataError, ResultsUnusable):
        checkpoint = resolve(model, cache=cache, registry=registry, family=family)
        if rows is None:
            results = _measure_cells(checkpoint, queries or _QUERIES)
            write_results(output, results)
            _print_cells(results)
        else:
            measured = _measure_rows(checkpoint, rows, device)
            write_results(output, measured.results(metric))
            _print_rows(measured)


def _measure_cells(checkpoint: Checkpoint, queries: int) -> Results:
    from model_store.evaluation.nine_cells import evaluate_cells, refuse_text_only
    from model_store.recipes.tiny.scoring import open_scorer
    from model_store.synthetic.cells import CELLS

    refuse_text_only(checkpoint)
    score = open_scorer(checkpoint)
    with progress(f"measuring {checkpoint.name}", len(CELLS), unit="cells") as advance:
        return evaluate_cells(checkpoint, score, queries, advance)


def _measure_rows(checkpoint: Checkpoint, path: Path, device: str) -> Measured:
    import torch

    from model_store.training.benchmark import Rows, measure

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not on_gpu:
        fail("--device is cuda, but this machine has no usable GPU.")

    rows = Rows(path, checkpoint)
    with progress(f"measuring {checkpoint.name}", len(rows), unit="rows") as advance:
        return measure(checkpoint, rows, device="cuda" if on_gpu else "cpu", progress=advance)


def _print_cells(results: Results) -> None:
    for cell, values in results.datasets.items():
        typer.echo(f"{cell:6} {results.metric} {fmean(values.values()):.4f}")
    typer.echo(f"mean   {results.metric} {results.score:.4f}")


def _print_rows(measured: Measured) -> None:
    """Print the mean of every metric over all rows, and over the rows of each kind of pair."""
    kinds = sorted(set(measured.kinds.values()))
    for metric, values in measured.values.items():
        means = [f"{metric:8} {fmean(values.values()):.4f}"]
        if len(kinds) > 1:
            means += [f"{kind} {_mean_of_kind(measured, values, kind):.4f}" for kind in kinds]
        typer.echo("  ".join(means))
    typer.echo(f"{len(measured.kinds)} rows, benchmark {measured.benchmark}")


def _mean_of_kind(measured: Measured, values: dict[str, float], kind: str) -> float:
    return fmean(value for query, value in values.items() if measured.kinds[query] == kind)
