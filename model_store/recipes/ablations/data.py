"""Training rows of the nine generated cells, in the training job's own form, with as many negatives
as any comparison needs.

Knows cells and rows, no network. Invariant: the same numbers give the same rows, and no document
that answers its query is held out; where the file is, every picture it names is there, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from model_store.recipes.tiny.rows import saved_side
from model_store.synthetic import cells
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import Example, Negative

ROWS = "rows.jsonl"
POOL = 16
"""Negatives of a row, of which a run draws as many as its setting says (figure 8)."""


def write_rows(folder: Path, count: int, seed: int) -> Path:
    """`count` rows, the cells in turn, and their pictures under `folder`; gives the file, which is
    left alone if it is there.

    Raises `DataError` where the disk refuses.
    """
    path = folder / f"{count}-{seed}" / ROWS
    if not path.exists():
        write_examples(path, _rows(path, count, seed))
    return path


def _rows(path: Path, count: int, seed: int) -> Iterator[Example]:
    """Every other row of a cell asks with the default instruction, as the benchmark's queries
    do."""
    images = path.parent / "images"
    images.mkdir(exist_ok=True)
    for number in range(count):
        turn, place = divmod(number, len(cells.CELLS))
        drawn = cells.sample(
            cells.CELLS[place],
            Random(f"ablations/{seed}/{number}"),
            "train",
            POOL,
            plain=turn % 2 == 1,
        )
        relevant, *others = (saved_side(document, images) for document in drawn.documents)
        # Scenes, pages and texts come with near misses first; of facts and names, each may be one.
        negatives = (
            Negative(side, "hard" if at < POOL // 2 else "random") for at, side in enumerate(others)
        )
        yield Example(
            id=f"{drawn.cell}/{number}",
            instruction=drawn.instruction,
            query=saved_side(drawn.query, images),
            positives=(relevant,),
            negatives=tuple(negatives),
            location=f"{path}:{number + 1}",
        )
