"""Saved states of a run: one folder a step, complete or absent.

Depends on tensors by name and on files, not on a network. Invariant: a state that `latest` returns
was written to its end and has not changed since. A state that cannot be written, on a full disk or
at a kill, leaves those before it as they were.

A state holds the trained tensors, the optimizer's moments and the step. It needs no random
generator: the order of examples, their negatives and dropout are functions of the seed and the
step, and so is the learning rate.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_store.files import sync
from model_store.manifest import FileDigest, digest_files
from model_store.training.config import TrainingError
from model_store.training.early_stop import Best, Evaluations

STATE = "state.json"
WEIGHTS = "weights.safetensors"
MOMENTS = "moments.pt"
BEST = "best.safetensors"
PREFIX = "step-"
"""A folder's name begins with it; its step follows."""
MAX_STATE_BYTES = 2**20


class Saved(BaseModel):
    """`state.json`: the step of a state, the facts of its run, and the digests of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    run: dict[str, Any]
    files: dict[str, FileDigest]
    evaluations: Evaluations | None = None
    """Those of a run with an early stop, whose best weights are a file of the state."""


@dataclass(frozen=True, slots=True)
class State:
    """A state that was read."""

    step: int
    run: dict[str, Any]
    weights: dict[str, Tensor]
    moments: dict[str, Any]
    best: Best | None = None


def save(
    root: Path,
    step: int,
    run: dict[str, Any],
    weights: dict[str, Tensor],
    moments: dict[str, Any],
    *,
    keep: int,
    best: Best | None = None,
) -> None:
    """Write the state after `step`, with the best one so far if there is one, and remove all but
    the newest `keep`; raises `TrainingError` where the disk refuses."""
    draft, final = root / f".{PREFIX}{step:08d}.draft", _folder(root, step)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file(weights, draft / WEIGHTS)
        with (draft / MOMENTS).open("wb") as file:
            torch.save(moments, file)
        names = [WEIGHTS, MOMENTS]
        if best is not None:
            save_file(best.weights, draft / BEST)
            names.append(BEST)

        evaluations = None if best is None else best.evaluations
        files = digest_files(draft, names)
        saved = Saved(step=step, run=run, files=files, evaluations=evaluations)
        text = saved.model_dump_json(indent=1, exclude={"evaluations"} if best is None else None)
        (draft / STATE).write_text(text + "\n", encoding="utf-8")

        for path in (*draft.iterdir(), draft):
            sync(path)
        shutil.rmtree(final, ignore_errors=True)  # exists only if it was found damaged
        draft.replace(final)
        sync(root)
    # torch and safetensors wrap errors of the disk
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            shutil.rmtree(draft, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainingError(
            f"{final}: the state after step {step} cannot be written ({reason}); the states before"
            " it stay."
        ) from None

    for old in _steps(root)[:-keep]:
        shutil.rmtree(_folder(root, old), ignore_errors=True)


def latest(root: Path) -> tuple[State | None, Sequence[str]]:
    """The newest undamaged state, and a sentence on each newer one that is damaged."""
    damaged: list[str] = []
    for step in reversed(_steps(root)):
        try:
            return _read(_folder(root, step)), damaged
        except (OSError, ValueError, ValidationError, RuntimeError, SafetensorError, EOFError):
            damaged.append(f"{_folder(root, step)} is damaged, and is passed over.")
    return None, damaged


def _read(folder: Path) -> State:
    if (folder / STATE).stat().st_size > MAX_STATE_BYTES:
        raise ValueError

    saved = Saved.model_validate(json.loads((folder / STATE).read_bytes()))
    names = {WEIGHTS, MOMENTS} | ({BEST} if saved.evaluations is not None else set())
    if set(saved.files) != names or digest_files(folder, saved.files) != saved.files:
        raise ValueError

    moments = torch.load(folder / MOMENTS, map_location="cpu", weights_only=True)
    best = None
    if saved.evaluations is not None:
        best = Best(saved.evaluations, load_file(folder / BEST))
    return State(saved.step, saved.run, load_file(folder / WEIGHTS), moments, best)


def _steps(root: Path) -> list[int]:
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    found = [re.fullmatch(rf"{PREFIX}(\d{{8}})", name) for name in names]
    return sorted(int(match[1]) for match in found if match)


def _folder(root: Path, step: int) -> Path:
    return root / f"{PREFIX}{step:08d}"
