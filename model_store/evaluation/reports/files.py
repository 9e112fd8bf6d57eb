"""The folder that the files of a report or of a comparison are written into.

Does not depend on what is written.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_store.evaluation.results import ResultsUnusable


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Create a folder, and turn the block's `OSError` into `ResultsUnusable`.

    Raises `ModuleNotFoundError` where matplotlib is missing, before a file is written.
    """
    importlib.import_module("matplotlib")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ResultsUnusable(f"{folder} cannot be written to ({error.strerror}).") from None
