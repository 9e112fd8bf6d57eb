"""`gmr calibrate`: maps from a model's raw scores to probabilities, fitted to judged rows.

Does not depend on networks; what it runs is imported when it runs. Invariant: what can be refused
without loading weights is refused first, and a new version is written whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import check_writable, fail, misuse, progress, refusing
from model_store.commands.options import MAX_SEED, Cache, Device, Model, finite
from model_store.commands.publish import UploadTo, upload_folder

if TYPE_CHECKING:
    from model_store.calibration.description import Calibration, Errors, InstructionMap, PlattMap
    from model_store.calibration.judged_pairs import Judged, JudgedPairs
    from model_store.checkpoint import Checkpoint

_SHOWN_CHARS = 100


def register(app: typer.Typer) -> None:
    """Add `gmr calibrate`."""
    app.command()(calibrate)


RowsFile = Annotated[
    Path,
    typer.Argument(
        help=(
            "Judged rows, which have the form of training rows (`gmr convert`), or the folder of a"
            " run of `gmr eval` of this model, whose scores are taken as they are."
        )
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the new version; it must not exist. Default: measure, and write nothing."
    ),
]
Instructions = Annotated[
    list[str] | None,
    typer.Option(
        "--instruction",
        help="Calibrate this instruction alone; may be repeated. Default: all in the rows.",
        metavar="TEXT",
    ),
]
Share = Annotated[
    float | None,
    typer.Option(
        min=0.0001,
        max=0.9999,
        callback=finite,
        help=(
            "Share of relevant documents among the candidates that the model will score; pairs are"
            " weighted to it. Default: that of the rows."
        ),
        metavar="X",
    ),
]
Diagram = Annotated[
    Path | None, typer.Option(help="Reliability diagram to write, a PNG.", metavar="FILE")
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds divide queries equally.")]


def calibrate(
    model: Model,
    rows: RowsFile,
    *,
    output: Output = None,
    instruction: Instructions = None,
    share: Share = None,
    diagram: Diagram = None,
    device: Annotated[Device, typer.Option(help="Device to score on.")] = "auto",
    seed: Seed = 0,
    registry: UploadTo = None,
    cache: Cache = None,
) -> None:
    """Fit a map from raw scores to probabilities for each instruction of judged rows, and publish
    it as a new version of the model.

    Platt's sigmoid or isotonic regression is chosen by held-out log loss. Weights and scores stay
    as they are. Without --output, the figures are printed, and nothing is written.
    """
    from model_store.checkpoint import expect_named, resolve
    from model_store.errors import DataError
    from model_store.evaluation.runs.journal import RunUnusable
    from model_store.manifest import CheckpointUnusable
    from model_store.training.publish.calibrated import refuse_unless_published
    from model_store.training.publish.pairs import PublishRefused

    if output is not None and output.exists():
        fail(f"{output.name} is there already: a published folder is never changed.")
    if diagram is not None:
        if diagram.suffix != ".png":
            misuse("--diagram is a .png file.")
        check_writable(diagram)

    with refusing(CheckpointUnusable, DataError, PublishRefused, RunUnusable):
        expect_named(model)
        checkpoint = resolve(model, cache=cache, registry=registry)
        refuse_unless_published(checkpoint)
        maps = _fit(checkpoint, rows, instruction or [], share, device, seed)
        if diagram is not None:
            from model_store.calibration.diagram import draw

            draw(maps, diagram)
        if output is None:
            typer.echo("Nothing was written: --output writes a new version.")
            return
        _publish(checkpoint, maps, output, registry)


def _fit(
    checkpoint: Checkpoint,
    path: Path,
    instructions: list[str],
    share: float | None,
    device: str,
    seed: int,
) -> list[InstructionMap]:
    """Fit a map for each instruction of the rows or the run, and print its figures."""
    from model_store.calibration.instruction_map import map_of
    from model_store.calibration.judged_pairs import judged_pairs

    if path.is_dir():
        judged, digest = _of_run(checkpoint, path, instructions)
    else:
        judged, digest = _of_rows(checkpoint, path, instructions, device)

    maps: list[InstructionMap] = []
    unfitted = _unfitted(checkpoint)
    for instruction, queries in judged.items():
        pairs = judged_pairs(queries, share)
        fitted = map_of(
            instruction,
            pairs,
            rows=digest,
            unfitted=unfitted,
            weighted=share is not None,
            seed=seed,
        )
        maps.append(fitted)
        _print_map(fitted, unfitted)
        _print_present(checkpoint.calibration, instruction, pairs, seed)
    return maps


def _of_rows(
    checkpoint: Checkpoint, path: Path, instructions: list[str], device: str
) -> tuple[dict[str, list[Judged]], str]:
    """The judged scores of rows by instruction, and the digest of the rows."""
    from model_store.training.judged_rows import JudgedRows, score_rows

    on_gpu = _uses_gpu(device)
    rows = JudgedRows(path, checkpoint, instructions)
    with progress(f"scoring {checkpoint.name}", len(rows), unit="rows") as advance:
        judged = score_rows(checkpoint, rows, device="cuda" if on_gpu else "cpu", progress=advance)
    return judged, rows.digest


def _of_run(
    checkpoint: Checkpoint, folder: Path, instructions: list[str]
) -> tuple[dict[str, list[Judged]], str]:
    """The judged scores that a run of `gmr eval` has, by instruction, and their digest."""
    from model_store.evaluation.runs.folder import open_run
    from model_store.evaluation.runs.judged_scores import judged_scores

    found = judged_scores(open_run(folder), checkpoint, instructions)
    if found.left_out:
        typer.echo(f"Queries without scores, which are left out: {found.left_out:,}.")
    return found.by_instruction, found.digest


def _uses_gpu(device: str) -> bool:
    import torch

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not on_gpu:
        fail("--device is cuda, but this machine has no usable GPU.")
    return on_gpu


def _unfitted(checkpoint: Checkpoint) -> PlattMap | None:
    """The sigmoid that gives the model's relevance score; None where that is no probability."""
    from model_store.calibration.description import PlattMap

    transform = checkpoint.transform
    if transform.curve != "sigmoid":
        return None
    return PlattMap(slope=1 / transform.scale, intercept=-transform.shift / transform.scale)


def _print_map(fitted: InstructionMap, unfitted: PlattMap | None) -> None:
    evidence = fitted.evidence
    count = evidence.relevant + evidence.irrelevant
    typer.echo(
        f"{_short(fitted.instruction)}: {evidence.queries:,} queries, {count:,} pairs,"
        f" {evidence.relevant_share:.2%} relevant{' by weight' if evidence.weighted else ''}"
    )
    if evidence.uncalibrated is None:
        typer.echo("  relevance_score: no probability")
    else:
        typer.echo(f"  relevance_score: {_figures(evidence.uncalibrated)}")
    typer.echo(
        f"  probability ({fitted.map.kind}; log loss: platt {evidence.platt_log_loss:.4f}, isotonic"
        f" {evidence.isotonic_log_loss:.4f}): {_figures(evidence.held_out)}"
    )
    if fitted.map == unfitted:
        typer.echo(
            "  Neither map is better than relevance_score on held-out pairs: probability is"
            " relevance_score. More rows may give a better map."
        )


def _print_present(
    calibration: Calibration | None, instruction: str, pairs: JudgedPairs, seed: int
) -> None:
    """Print the errors of the map that the model has already, on pairs which it may not know."""
    from model_store.calibration.fitting import probabilities
    from model_store.calibration.measures import errors

    for each in () if calibration is None else calibration.maps:
        if each.instruction == instruction:
            found = errors(probabilities(each.map, pairs.scores), pairs, seed)
            typer.echo(f"  probability as published: {_figures(found)}")


def _figures(found: Errors) -> str:
    interval = f"[{found.ece_low:.4f}, {found.ece_high:.4f}]"
    return f"ECE {found.ece:.4f} {interval}, log loss {found.log_loss:.4f}"


def _short(instruction: str) -> str:
    one_line = " ".join(instruction.split()) or "(no instruction)"
    cut = len(one_line) > _SHOWN_CHARS
    return f"{one_line[: _SHOWN_CHARS - 3]}..." if cut else one_line


def _publish(
    checkpoint: Checkpoint, maps: list[InstructionMap], output: Path, registry: str | None
) -> None:
    from model_store.manifest import manifest_digest
    from model_store.training.publish.calibrated import calibration_of, write_calibrated

    manifest = write_calibrated(checkpoint, calibration_of(checkpoint, maps), output)
    typer.echo(f"{manifest.name}@sha256:{manifest_digest(output)} is in {output}.")
    if registry:
        upload_folder(output, registry)
