"""`gmr publish --cascade`: a cascade is measured against its last stage alone, and written.

Does not depend on how scores are computed. Invariant: what can be refused without loading weights
is refused first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from model_store.commands.console import fail, misuse, progress, refusing

if TYPE_CHECKING:
    from model_store.cascades.description import Stage
    from model_store.checkpoint import Checkpoint
    from model_store.evaluation.cascades import StageScorer


def publish_cascade(
    draft_file: Path,
    output: Path,
    *,
    name: str | None,
    queries: int,
    cells: str | None,
    max_loss: float,
    registry: str | None,
    cache: Path | None,
) -> None:
    """Measure the cascade of a draft, and write its folder; `max_loss` is in points of nDCG."""
    from model_store.checkpoint import expect_named, resolve
    from model_store.evaluation.cascades import CascadeBenchmark, measure_cascade
    from model_store.evaluation.nine_cells import refuse_text_only
    from model_store.manifest import CheckpointUnusable
    from model_store.recipes.tiny.scoring import refuse_other_networks
    from model_store.synthetic.cells import CELLS
    from model_store.training.publish.cascade import (
        POINTS,
        read_draft,
        stages_of,
        verdict,
        write_cascade,
    )
    from model_store.training.publish.pairs import PublishRefused

    chosen = tuple(dict.fromkeys(cells.split(","))) if cells else CELLS
    if not set(chosen) <= set(CELLS):
        misuse(f"--cells is a list of {', '.join(CELLS)}.")
    with refusing(CheckpointUnusable, PublishRefused):
        draft = read_draft(draft_file)
        if output.exists():
            fail(f"{output.name} is there already: a published folder is never changed.")
        for drafted in draft.stages:
            expect_named(drafted.checkpoint)

        checkpoints = [
            resolve(drafted.checkpoint, cache=cache, registry=registry) for drafted in draft.stages
        ]
        for checkpoint in checkpoints:
            refuse_text_only(checkpoint)
            refuse_other_networks(checkpoint)
        name = name or draft.name or output.name
        stages = stages_of(draft, checkpoints, name, draft_file.name)

        enlarged = any(stage.max_pixels for stage in stages)
        benchmark = CascadeBenchmark(queries, chosen, enlarged=enlarged)
        scorers = _scorers(stages, checkpoints, enlarged=enlarged)
        with progress(f"measuring {name}", len(chosen), unit="cells") as advance:
            evidence = measure_cascade(scorers, benchmark, max_loss / POINTS, advance)
        for cell, found in evidence.cells.items():
            typer.echo(
                f"{cell:6} {evidence.metric} {found.cascade:.4f} against {found.last_stage:.4f},"
                f" {found.saving:.2f} times less work"
            )
        write_cascade(output, name, stages, evidence, checkpoints[-1])
        typer.echo(verdict(evidence))
        typer.echo(f"{name} is in {output}: name it in RERANK_CASCADES.")


def _scorers(
    stages: Sequence[Stage], checkpoints: Sequence[Checkpoint], *, enlarged: bool
) -> list[StageScorer]:
    from model_store.evaluation.cascades import StageScorer
    from model_store.recipes.tiny.scoring import largest_pixels, open_stage
    from model_store.sizing.network import network_cost

    enlarged_to = largest_pixels(checkpoints[-1]) if enlarged else None
    scorers: list[StageScorer] = []
    for stage, checkpoint in zip(stages, checkpoints, strict=True):
        transform = checkpoint.transform
        score = open_stage(checkpoint, stage.max_pixels, enlarged_to)
        operations = network_cost(str(checkpoint.folder)).operations(1, 1, 1)
        scorers.append(StageScorer(stage, score, operations, transform.scale, transform.shift))
    return scorers
