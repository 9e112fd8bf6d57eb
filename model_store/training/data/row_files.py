"""Files that appear whole or not at all, and examples as rows of them.

Knows the row's form, no task. Invariant: a name holds the old file or the whole new one, also where
the disk is full or the process is killed; what is written here, `read_examples` reads back equal.
"""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from model_store.files import atomic_file
from model_store.training.data.image_files import ImageMode, name_in
from model_store.training.data.rows import DataError, Example, Side

Write = Callable[[bytes], object]


@contextmanager
def output_file(path: Path) -> Iterator[Write]:
    """Gives what writes to a draft; the draft takes the name `path` when the block ends well, and
    else it is gone.

    A name that ends in `.gz` is packed, without a time in it: the same content, the same bytes.
    Raises `DataError` where the disk refuses.
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
    """Write a `.jsonl` or `.jsonl.gz` file, whole or not at all; gives the number of rows.

    `image_mode` is of images outside its folder.
    """
    count = 0
    with output_file(path) as write:
        for example in examples:
            write(line_of(example, path.parent, image_mode))
            count += 1
    return count


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people and programs, whole or not at all."""
    with output_file(path) as write:
        write(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def line_of(example: Example, folder: Path, image_mode: ImageMode = "reference") -> bytes:
    """An example as a row of a file in `folder`; raises `DataError` as `image_files.name_in`
    does."""
    row: dict[str, Any] = {"id": example.id}
    if example.instruction is not None:
        row["instruction"] = example.instruction
    row["query"] = _row(example.query, folder, image_mode)
    row["positives"] = [_row(side, folder, image_mode) for side in example.positives]
    row["negatives"] = [
        _row(negative.side, folder, image_mode) | {"kind": negative.kind}
        for negative in example.negatives
    ]
    return line(row)


def line(row: dict[str, Any]) -> bytes:
    """One JSON line, in UTF-8 as it is read."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _row(side: Side, folder: Path, image_mode: ImageMode) -> dict[str, str]:
    row = {} if side.text is None else {"text": side.text}
    return row if side.image is None else {"image": name_in(folder, side.image, image_mode), **row}


def check_outputs(*paths: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise `DataError` where a file cannot be written at each of `paths`, before there is anything
    to write.

    Also where two of them are one file, or one of them is one of `inputs`.
    """
    taken = {path.resolve(): path for path in inputs}
    for path in paths:
        if path.resolve() in taken:
            raise DataError(
                f"{path}: it is read or written by this command already; give another name."
            )
        taken[path.resolve()] = path
        if path.is_dir():
            raise DataError(f"{path}: it is a folder; give the name of a file.")
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.touch(exist_ok=False)
        except OSError as error:
            raise DataError(f"{path}: it cannot be written ({error.strerror}).") from None
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
