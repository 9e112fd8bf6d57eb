"""A finished run of `gmr train` as something to publish: its adapter, settings and last figures.

Depends on the run's folder, not on weights. Invariant: a run is refused if it trained a head, which
an adapter cannot carry, or if it was trained on another base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from model_store.checkpoint import Checkpoint
from model_store.families.catalogue import trained_readout
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.manifest import MANIFEST, digest_files
from model_store.training.outcome import ADAPTER, MAX_MANIFEST_BYTES
from model_store.training.publish.card import Story
from model_store.training.publish.pairs import PublishRefused


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """An adapter's folder, the story of its card, and the read-out and template that it was trained
    for.

    `read_out` and `template` are empty for an adapter of unknown origin, whose own header may state
    them.
    """

    folder: Path
    story: Story
    read_out: str = ""
    template: str = ""


def open_run(folder: Path, base: Checkpoint, story: Story) -> TrainedAdapter:
    """The adapter of a run, and the story completed with the run's settings and figures.

    A run's `adapter` folder stands for the run; any other folder is taken for an adapter. Raises
    `PublishRefused` where the run is not finished, was on another base, trained a head of its own,
    or no longer has the adapter that it left.
    """
    run = _run_of(folder)
    if run is None:
        return TrainedAdapter(folder, story)

    manifest = _read(run)
    _refuse_unless_carried(run.name, manifest, base)
    _refuse_unless_unchanged(run, manifest)
    settings = yaml.safe_dump(_without_folders(manifest["config"]), sort_keys=False)
    figures = {name: value for name, value in manifest["last"].items() if _is_figure(value)}
    return TrainedAdapter(
        run / ADAPTER,
        replace(story, config=story.config or settings, metrics=story.metrics or figures),
        _read_out(base, manifest),
        str(manifest["config"].get("template") or ""),
    )


def _run_of(folder: Path) -> Path | None:
    """The run that a folder is or whose adapter it is; None for an adapter of unknown origin."""
    if (folder / ADAPTER).is_dir():
        return folder

    run = folder.resolve().parent
    if folder.resolve().name != ADAPTER or not (run / MANIFEST).is_file():
        return None

    try:
        _read(run)
    except PublishRefused:
        return None

    return run


def _refuse_unless_carried(name: str, manifest: dict[str, Any], base: Checkpoint) -> None:
    """Raise `PublishRefused` for a trained head, and for another base."""
    head, trained_on = manifest["head"].get("kind"), manifest["base"]
    if head != "tokens":
        raise PublishRefused(
            f"{name} was trained with a head of its own ({head}), which nothing that is served can"
            " carry."
        )
    if trained_on.get("digest") != base.digest:
        raise PublishRefused(
            f"{name} was trained on {trained_on.get('name')}, which is not this {base.name} (its"
            " digest differs)."
        )


def _read_out(base: Checkpoint, manifest: dict[str, Any]) -> str:
    """The read-out that a run trained for: by its method, or by its loss's direction."""
    if manifest["config"].get("method"):
        return base.readout.name
    return trained_readout(base.manifest, _direction(manifest)).name


def _direction(manifest: dict[str, Any]) -> str:
    loss = manifest["config"].get("loss")
    return str(loss.get("direction", "sft")) if isinstance(loss, dict) else "sft"


def _refuse_unless_unchanged(run: Path, manifest: dict[str, Any]) -> None:
    """Raise `PublishRefused` where a file of the adapter has not the digest in the manifest."""
    files = manifest.get("files")
    for name in (f"{ADAPTER}/{ADAPTER_CONFIG}", f"{ADAPTER}/{ADAPTER_WEIGHTS}"):
        stated = files.get(name) if isinstance(files, dict) else None
        if stated is None:
            continue
        try:
            found = digest_files(run, [name])[name].model_dump()
        except OSError:
            raise PublishRefused(f"{run.name} lacks {name}.") from None
        if found != stated:
            raise PublishRefused(
                f"{run.name}: {name} is not the file that the run left (SHA-256 differs)."
            )


def _read(folder: Path) -> dict[str, Any]:
    """The manifest of a run; raises `PublishRefused`."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            manifest = json.loads(file.read(MAX_MANIFEST_BYTES))
        if all(isinstance(manifest[part], dict) for part in ("head", "base", "last", "config")):
            return dict(manifest)
    except FileNotFoundError:
        raise PublishRefused(f"{folder.name} has no {MANIFEST}: the run is not finished.") from None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise PublishRefused(f"{folder.name}/{MANIFEST} is not that of a run of `gmr train`.")


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _without_folders(value: Any) -> Any:
    """Settings with the last part of each absolute path: its folders are of one machine."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name

    return value
