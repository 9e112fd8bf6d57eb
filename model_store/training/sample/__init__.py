"""A sample of training rows that ships: 24 rows of nine tasks, with pictures, and a corpus to mine.

Its files were drawn by `python -m model_store.recipes.tiny.sample`, and are under the licence of
this repository. Depends on files, not on their content. Invariant: the sample is copied as a whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from model_store.errors import DataError

_HERE = Path(__file__).parent / "files"


def write_sample(folder: Path) -> tuple[int, int, int]:
    """Copy the sample to a folder that is empty or not there; gives its rows, documents and images.

    Raises `DataError`.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder}: the folder is not empty; give another one.")
        shutil.copytree(_HERE, folder, dirs_exist_ok=True)
        counts = [
            len((folder / name).read_bytes().splitlines())
            for name in ("rows.jsonl", "rows.corpus.jsonl")
        ]
        images = len(list((folder / "images").iterdir()))
    except OSError as error:
        raise DataError(f"{folder}: it cannot be written ({error.strerror}).") from None
    return counts[0], counts[1], images
