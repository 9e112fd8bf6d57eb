"""A finished run of `gmr train` as something to publish: its adapter, its settings and its last figures.

Knows the run's folder, no weights. Invariant: a run that learnt what an adapter cannot carry, or on another base, is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from model_store.manifest import MANIFEST
from model_store.registry import Checkpoint
from model_store.training.outcome import ADAPTER, MAX_MANIFEST_BYTES
from model_store.training.publish.card import Story
from model_store.training.publish.pairs import PublishRefused


def open_run(folder: Path, base: Checkpoint, story: Story) -> tuple[Path, Story]:
    """The adapter's folder and the story with what the run knows of itself; a folder that is no run is taken for an adapter.

    Raises `PublishRefused` where the run is not finished, was on another base, or trained a head of its own.
    """
    if not (folder / ADAPTER).is_dir():
        return folder, story
    told = _read(folder)
    head, on = told["head"].get("kind"), told["base"]
    if head != "tokens":
        raise PublishRefused(
            f"{folder.name} was trained with a head of its own ({head}), which nothing that is served can carry."
        )
    if on.get("digest") != base.digest:
        raise PublishRefused(
            f"{folder.name} was trained on {on.get('name')}, which is not this {base.name} (its digest differs)."
        )
    figures = {name: value for name, value in told["last"].items() if isinstance(value, int | float) and math.isfinite(value)}
    return folder / ADAPTER, replace(
        story,
        config=story.config or yaml.safe_dump(_without_places(told["config"]), sort_keys=False),
        metrics=story.metrics or figures,
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
    """Settings without the folders in which things lay on one machine: of a path its last part is kept."""
    if isinstance(value, Mapping):
        return {key: _without_places(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
