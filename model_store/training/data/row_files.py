"""Output files of rows, which appear whole or not at all.

Does not depend on any task. Invariant: as in `model_store.files`; `read_examples` reads back equal
what `write_examples` wrote.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_store.files import atomic_file, check_replaceable
from model_store.training.data.image_files import ImageMode, relative_name
from model_store.training.data.rows import DataError, Example, Side

Write = Callable[[bytes], object]
"""Appends bytes to an output file."""


@contextmanager
def output_file(path: Path) -> Iterator[Write]:
    """Write a file atomically, and create its folder where it is missing.

    A name that ends in `.gz` is packed, without a time stamp: equal content gives equal bytes.
    Raises `DataError` where the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                    yield packed.write
            else:
                yield file.write
    except OSError as error:
        raise DataError(f"{path}: it cannot be written ({error.strerror}).") from None


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


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented and in order of its keys."""
    with output_file(path) as write:
        write(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def example_line(example: Example, folder: Path, image_mode: ImageMode = "reference") -> bytes:
    """An example as a row of a file in `folder`; raises `DataError` as `image_files.relative_name`
    does."""
    row: dict[str, Any] = {"id": example.id}
    if example.instruction is not None:
        row["instruction"] = example.instruction

    row["query"] = _side_row(example.query, folder, image_mode)
    row["positives"] = [_side_row(side, folder, image_mode) for side in example.positives]
    row["negatives"] = [
        _side_row(negative.side, folder, image_mode) | {"kind": negative.kind}
        for negative in example.negatives
    ]
    return json_line(row)


def json_line(row: dict[str, Any]) -> bytes:
    """A row as one line of JSON in UTF-8."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _side_row(side: Side, folder: Path, image_mode: ImageMode) -> dict[str, str]:
    row = {}
    if side.image is not None:
        row["image"] = relative_name(folder, side.image, image_mode)
    if side.text is not None:
        row["text"] = side.text
    return row


def check_outputs(*paths: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise `DataError` where a file cannot be written to one of `paths`, before the work whose
    result it is to hold.

    Two paths may not be one file, and none may be one of `inputs`.
    """
    taken = {path.resolve() for path in inputs}
    for path in paths:
        if path.resolve() in taken:
            raise DataError(
                f"{path}: it is read or written by this command already; give another name."
            )
        taken.add(path.resolve())

        if path.is_dir():
            raise DataError(f"{path}: it is a folder; give the name of a file.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_replaceable(path)
        except OSError as error:
            raise DataError(f"{path}: it cannot be written ({error.strerror}).") from None
