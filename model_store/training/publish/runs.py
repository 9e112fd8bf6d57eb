"""A finished run of `gmr train` as something to publish: its adapter, its settings and its last
figures.

Knows the run's folder, no weights. Invariant: a run that learnt what an adapter cannot carry, or on
another base, is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
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


def open_run(folder: Path, base: Checkpoint, story: Story) -> tuple[Path, Story]:
    """The adapter's folder and the story with what the run knows of itself; a folder that is no run
    is taken for an adapter.

    A run's `adapter` folder is taken for the run. Raises `PublishRefused` where the run is not
    finished, was on another base, trained a head of its own, was trained for another score than the
    base's, or no longer has the adapter that it left.
    """
    run = _run_of(folder)
    if run is None:
        return folder, story

    told = _read(run)
    _refuse_unless_carried(run.name, told, base)
    _refuse_unless_unchanged(run, told)
    figures = {
        name: value
        for name, value in told["last"].items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return run / ADAPTER, replace(
        story,
        config=story.config or yaml.safe_dump(_without_places(told["config"]), sort_keys=False),
        metrics=story.metrics or figures,
    )


def _run_of(folder: Path) -> Path | None:
    """The run that a folder is, or whose adapter it is; None where it is an adapter of unknown
    origin."""
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


def _refuse_unless_carried(name: str, told: dict[str, Any], base: Checkpoint) -> None:
    """An adapter carries neither a head nor another way to read the score."""
    head, on, loss = told["head"].get("kind"), told["base"], told["config"].get("loss")
    if head != "tokens":
        raise PublishRefused(
            f"{name} was trained with a head of its own ({head}), which nothing that is served can"
            " carry."
        )
    direction = loss.get("direction", "sft") if isinstance(loss, dict) else "sft"
    read_out = trained_readout(base.manifest, direction).name
    if read_out != base.readout.name:
        raise PublishRefused(
            f"{name} was trained with loss.direction: {direction}, so that its score is {read_out},"
            f" and the score of {base.name} is {base.readout.name}: what is served would read"
            " it wrongly."
        )
    if on.get("digest") != base.digest:
        raise PublishRefused(
            f"{name} was trained on {on.get('name')}, which is not this {base.name} (its digest"
            " differs)."
        )


def _refuse_unless_unchanged(run: Path, told: dict[str, Any]) -> None:
    """The run's manifest has the digest of each file that it left."""
    files = told.get("files")
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
    try:
        with (folder / MANIFEST).open("rb") as file:
            told = json.loads(file.read(MAX_MANIFEST_BYTES))
        if all(isinstance(told[part], dict) for part in ("head", "base", "last", "config")):
            return dict(told)
    except FileNotFoundError:
        raise PublishRefused(f"{folder.name} has no {MANIFEST}: the run is not finished.") from None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise PublishRefused(f"{folder.name}/{MANIFEST} is not that of a run of `gmr train`.")


def _without_places(value: Any) -> Any:
    """Settings without the folders in which things lay on one machine: of a path its last part is
    kept."""
    if isinstance(value, Mapping):
        return {key: _without_places(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    return (
        PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
    )
