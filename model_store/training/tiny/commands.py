"""`gmr eval`: a checkpoint on the generated nine-cell benchmark, query by query, for the gate of `gmr models promote`.

Knows the command line alone. Invariant: results are written whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model_store.endings import check_writable, fail

MAX_QUERIES = 2000


def register(app: typer.Typer) -> None:
    """Add `gmr eval`."""
    app.command("eval")(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="A name that ships, a folder with a manifest, NAME@production, NAME@sha256:...")],
    output: Annotated[Path, typer.Argument(help="Where the results go, as JSON.")],
    queries: Annotated[int, typer.Option(help="Queries a cell.", min=3, max=MAX_QUERIES)] = 50,
    registry: Annotated[str | None, typer.Option(envvar="RERANK_REGISTRY", help="Folder or URL of the registry.")] = None,
    cache: Annotated[Path | None, typer.Option(envvar="RERANK_MODEL_CACHE", help="Where pulled models are kept.")] = None,
) -> None:
    """Measure a checkpoint on nine cells of held-out generated queries, 20 candidates each."""
    from model_store.evaluation.commands import moving
    from model_store.evaluation.results import ResultsUnusable, write_results
    from model_store.manifest import CheckpointUnusable
    from model_store.registry import resolve
    from model_store.training.tiny import cells, heldout

    check_writable(output)
    try:
        checkpoint = resolve(model, cache=cache, registry=registry)
        with moving(f"measuring {checkpoint.name}", len(cells.CELLS), unit="cells") as tell:
            results = heldout.evaluate(checkpoint, queries, told=lambda cell: tell(1))
        write_results(output, results)
    except (CheckpointUnusable, ResultsUnusable) as refusal:
        fail(str(refusal))
    for cell, values in results.datasets.items():
        typer.echo(f"{cell:6} {results.metric} {sum(values.values()) / len(values):.4f}")
    typer.echo(f"mean   {results.metric} {results.score:.4f}")
