"""Output files that appear whole or not at all: of bytes, of rows and of JSON.

Does not depend on what a row means. Invariant: as in `model_store.files`; a file that cannot be
written is one sentence.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_store.errors import DataError
from model_store.files import atomic_file, check_replaceable

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


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented and in order of its keys."""
    with output_file(path) as write:
        write(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def json_line(row: dict[str, Any]) -> bytes:
    """A row as one line of JSON in UTF-8."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


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
