"""Metrics of a run: a line of JSON a step in `metrics.jsonl`, and TensorBoard's files on request.

Depends on numbers by name, not on a network. Invariant: after a resume at a step, the file has each
step up to it once, and none after it. A run that begins anew has none of the rows before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_store.errors import DataError
from model_store.output_files import output_file
from model_store.training.config import TrainingError

METRICS = "metrics.jsonl"


class Journal:
    """Appends rows to `metrics.jsonl`; `write` returns once the operating system has the row."""

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        """Continue after `step`; raises `TrainingError` where the disk refuses or TensorBoard is
        not installed."""
        self._path = folder / METRICS
        try:
            kept = [row for row in read_metrics(folder) if step and row["step"] <= step]
            with output_file(self._path) as write:
                for row in kept:
                    write(_line(row))
            self._file = self._path.open("ab")
        except (OSError, DataError) as error:
            raise TrainingError(
                f"{self._path}: it cannot be written ({getattr(error, 'strerror', None) or error})."
            ) from None
        self._board = _board(folder, step) if tensorboard else None

    def write(self, step: int, **values: float) -> None:
        """One row: a step and its numbers."""
        try:
            self._file.write(_line({"step": step, **values}))
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"{self._path}: it cannot be written ({error.strerror}).") from None
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close all files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows so far, without a last line that was cut off; none where there is no file."""
    rows: list[dict[str, float]] = []
    try:
        with (folder / METRICS).open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                    break
                rows.append(row)
    except FileNotFoundError:
        pass
    return rows


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "tensorboard is true, but the package tensorboard is not installed."
        ) from None
    # a run that begins anew evaluates step 0 again
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)
