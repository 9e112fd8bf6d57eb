"""Output files of training rows.

Does not depend on any task. Invariant: as in `model_store.output_files`; `read_examples` reads back
equal what `write_examples` wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model_store.output_files import json_line, output_file
from model_store.training.data.image_files import ImageMode, relative_name
from model_store.training.data.rows import Example, Side


def write_examples(
    path: Path, examples: Iterable[Example], image_mode: ImageMode = "reference"
) -> int:
    """Write a `.jsonl` or `.jsonl.gz` file atomically; returns the number of rows.

    `image_mode` is for images outside its folder.
    """
    count = 0
    with output_file(path) as write:
        for example in examples:
            write(example_line(example, path.parent, image_mode))
            count += 1
    return count


def example_line(example: Example, folder: Path, image_mode: ImageMode = "reference") -> bytes:
    """An example as a row of a file in `folder`; raises `DataError` as `image_files.relative_name`
    does."""
    row: dict[str, Any] = {"id": example.id}
    if example.instruction is not None:
        row["instruction"] = example.instruction

    row["query"] = side_row(example.query, folder, image_mode)
    row["positives"] = [side_row(side, folder, image_mode) for side in example.positives]
    row["negatives"] = [
        side_row(negative.side, folder, image_mode) | {"kind": negative.kind}
        for negative in example.negatives
    ]
    if example.teacher_scores is not None:
        row["teacher_scores"] = list(example.teacher_scores)
    return json_line(row)


def side_row(side: Side, folder: Path, image_mode: ImageMode) -> dict[str, str]:
    """A side as JSON in a row of a file in `folder`; raises `DataError` as
    `image_files.relative_name` does."""
    row = {}
    if side.image is not None:
        row["image"] = relative_name(folder, side.image, image_mode)
    if side.text is not None:
        row["text"] = side.text
    return row
