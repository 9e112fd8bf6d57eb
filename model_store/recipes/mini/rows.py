"""The rows that gmr-mini's adapter learns from: generated cells, real texts, and named pictures.

Depends on rows that were made elsewhere. Invariant: the files are a function of their numbers and
of the rows that they are drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from model_store.recipes.mini.pictures.groups import picture_rows
from model_store.recipes.mini.preparation import SEED
from model_store.recipes.mini.sources.pictures.named import NamedPicture
from model_store.recipes.tiny.rows import SHARES, write_rows
from model_store.synthetic.cells import CELLS
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import Example, read_examples


def write_data(
    folder: Path,
    *,
    texts: Path,
    pictures: Sequence[NamedPicture],
    counts: tuple[int, int, int],
    dev: int,
) -> None:
    """Write `train.jsonl` of so many rows of cells, texts and pictures, and `dev.jsonl` of `dev`
    generated ones, unless they are there."""
    of_cells, of_texts, of_pictures = counts
    if not (folder / "dev.jsonl").exists():
        write_rows(folder / "dev.jsonl", dev, names=CELLS, seed=SEED)
    if (folder / "train.jsonl").exists():
        return

    write_rows(folder / "cells.jsonl", of_cells, names=SHARES, seed=SEED)
    rows = list(read_examples(folder / "cells.jsonl"))
    rng = Random(f"rows of gmr-mini/{SEED}")
    rows += map(_without_teacher, rng.sample(list(read_examples(texts)), of_texts))
    rows += picture_rows(pictures, of_pictures, SEED)
    rng.shuffle(rows)
    write_examples(folder / "train.jsonl", rows, "link")


def _without_teacher(row: Example) -> Example:
    """A row of texts as one of a cell: the loss has no part of a teacher, and no negative is the
    positive in other letters."""
    relevant = (row.positives[0].text or "").casefold()
    negatives = [one for one in row.negatives if (one.side.text or "").casefold() != relevant]
    return replace(row, negatives=tuple(negatives), teacher_scores=None)
