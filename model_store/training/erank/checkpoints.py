"""Checkpoints of TRL's trainers as saved states: complete, undamaged, and of this run.

Depends on files, not on what a trainer writes into them. Invariant: a checkpoint that `latest`
returns was written to its end and has not changed since. transformers writes one file after the
other into a checkpoint's folder; a note with their digests, written last, makes it a saved state.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from model_store.errors import DataError
from model_store.files import sync
from model_store.manifest import FileDigest, digest_files
from model_store.output_files import write_json
from model_store.training.config import TrainingError

NOTE = "run.json"
MAX_NOTE_BYTES = 2**20
PREFIX = "checkpoint-"
"""A folder's name begins with it, as a trainer writes it; its step follows."""
_NAME = re.compile(rf"{PREFIX}(\d{{1,9}})")


class Note(BaseModel):
    """The step of a checkpoint, the facts of its run, and the digests of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    run: dict[str, Any]
    files: dict[str, FileDigest]


def complete(root: Path, step: int, run: Mapping[str, Any]) -> None:
    """Note that the checkpoint of a step is whole; raises `TrainingError`."""
    folder = root / f"{PREFIX}{step}"
    try:
        names = [path.name for path in folder.iterdir() if path.is_file() and path.name != NOTE]
        for name in names:
            sync(folder / name)
        digests = digest_files(folder, names)
        files = {name: digest.model_dump() for name, digest in digests.items()}
        write_json(folder / NOTE, {"step": step, "run": dict(run), "files": files})
        sync(folder)
    except (OSError, DataError) as error:
        raise _unwritten(folder, step, error) from None


@contextmanager
def written_by(trainer: Any, root: Path) -> Iterator[None]:
    """Around a trainer's steps: an error while a checkpoint is written becomes a `TrainingError`,
    and the checkpoint is removed.

    The packages that write its files wrap errors of the disk in exceptions of any class.
    """
    try:
        yield
    except (TrainingError, DataError):
        raise
    except Exception as error:
        step = int(trainer.state.global_step)
        folder = root / f"{PREFIX}{step}"
        if not folder.is_dir() or (folder / NOTE).exists():
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise _unwritten(folder, step, error) from None


def _unwritten(folder: Path, step: int, error: Exception) -> TrainingError:
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["no reason"])[0]
    return TrainingError(
        f"{folder}: the state after step {step} cannot be written ({reason}); the states before it"
        " stay."
    )


def latest(root: Path) -> tuple[Note | None, list[str]]:
    """The newest undamaged checkpoint, and a sentence on each newer one, which is removed.

    A trainer counts every folder when it removes old ones, so that one which cannot be used would
    stand for a good one.
    """
    removed: list[str] = []
    for step in sorted(_steps(root), reverse=True):
        folder = root / f"{PREFIX}{step}"
        try:
            return _read(folder), removed
        except (OSError, ValueError, ValidationError):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(f"{folder} is not complete, or damaged, and was removed.")
    return None, removed


def _read(folder: Path) -> Note:
    if (folder / NOTE).stat().st_size > MAX_NOTE_BYTES:
        raise ValueError
    note = Note.model_validate(json.loads((folder / NOTE).read_bytes()))
    if digest_files(folder, note.files) != note.files:
        raise ValueError
    return note


def _steps(root: Path) -> list[int]:
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    found = [_NAME.fullmatch(name) for name in names]
    return [int(match[1]) for match in found if match]
