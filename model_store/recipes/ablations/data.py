"""Training rows of the nine generated cells, with as many negatives as any comparison draws from.

Depends on cells and rows, not on a network. Invariant: the same numbers give the same rows, and no
held-out document answers a row's query. Where the file exists, so do all pictures that it names.
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
    """Write `count` rows, the cells in turn, and their pictures under `folder`; returns the file.

    A file that exists is left as it is. Raises `DataError` where the disk refuses.
    """
    path = folder / f"{count}-{seed}" / ROWS
    if not path.exists():
        write_examples(path, _rows(path, count, seed))
    return path


def _rows(path: Path, count: int, seed: int) -> Iterator[Example]:
    """Rows; every second one of a cell has the default instruction, as in the benchmark."""
    images = path.parent / "images"
    images.mkdir(exist_ok=True)

    for number in range(count):
        turn, cell = divmod(number, len(cells.CELLS))
        generator = Random(f"ablations/{seed}/{number}")
        drawn = cells.sample(cells.CELLS[cell], generator, "train", POOL, plain=turn % 2 == 1)
        relevant, *irrelevant = [saved_side(document, images) for document in drawn.documents]

        # Scenes, pages and texts have their near misses first; of facts and names, any may be one.
        negatives: list[Negative] = []
        for index, side in enumerate(irrelevant):
            negatives.append(Negative(side, "hard" if index < POOL // 2 else "random"))

        yield Example(
            id=f"{drawn.cell}/{number}",
            instruction=drawn.instruction,
            query=saved_side(drawn.query, images),
            positives=(relevant,),
            negatives=tuple(negatives),
            location=f"{path}:{number + 1}",
        )
