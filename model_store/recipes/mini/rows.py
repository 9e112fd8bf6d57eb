"""The rows that gmr-mini's adapter learns from: generated cells, real texts, and named pictures.

Depends on rows that were made elsewhere. Invariant: the files are a function of their numbers and
of the rows that they are drawn from, and no row shows what the model is measured on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from model_store.recipes.mini.pictures.groups import asked_for, picture_rows
from model_store.recipes.mini.preparation import SEED
from model_store.recipes.mini.sources.pictures.named import NamedPicture, by_source
from model_store.recipes.mini.texts.measures import Measured
from model_store.recipes.tiny.rows import SHARES, write_rows
from model_store.synthetic.cells import CELLS
from model_store.training.data.identity import content_key
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import Example, Negative, Side, read_examples
from model_store.training.data.splits import held_out_keys


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Files of what the model is measured on, as rows for `gmr data check`: `texts` are real
    questions, and `everything` is these and pictures by a word.

    Rows of texts are held against texts alone, since a word that asks for a picture may be in any.
    """

    texts: Path
    everything: Path


def write_held_out(
    folder: Path,
    texts: Mapping[str, Sequence[Measured]],
    pictures: Sequence[NamedPicture],
    queries: int,
) -> HeldOut:
    """Write both files to `folder`, with `queries` of each source of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    files = HeldOut(folder / "held-out-texts.jsonl", folder / "held-out.jsonl")
    of_texts = list(_of_texts(texts))
    write_examples(files.texts, of_texts)
    write_examples(files.everything, [*of_texts, *_of_pictures(pictures, queries)], "link")
    return files


def _of_texts(texts: Mapping[str, Sequence[Measured]]) -> Iterator[Example]:
    for kind, groups in texts.items():
        for number, group in enumerate(groups):
            documents = [Side(text, None) for text in group.documents]
            yield _row(f"{kind}/{number}", group.query, documents)


def _of_pictures(pictures: Sequence[NamedPicture], queries: int) -> Iterator[Example]:
    for source, of_source in by_source(pictures).items():
        for number, (query, candidates) in enumerate(asked_for(of_source, queries, SEED)):
            documents = [Side(None, picture.path) for picture in candidates]
            yield _row(f"{source}/{number}", query, documents)


def _row(identity: str, query: str, documents: Sequence[Side]) -> Example:
    """A row whose first document is the relevant one."""
    first, *others = documents
    return Example(
        id=identity,
        instruction=None,
        query=Side(query, None),
        positives=(first,),
        negatives=tuple(Negative(side, "random") for side in others),
        location="",
    )


def write_data(
    folder: Path,
    *,
    texts: Path,
    pictures: Sequence[NamedPicture],
    held_out: Path,
    counts: tuple[int, int, int],
    dev: int,
) -> None:
    """Write `train.jsonl` of `counts` rows of cells, texts and pictures, and `dev.jsonl` of `dev`
    generated ones, unless they are there.

    A row that shows a query or a positive of the rows in `held_out` is left out.
    """
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
    held = held_out_keys(read_examples(held_out))
    shown = [row for row in rows if not held & _keys(row)]
    write_examples(folder / "train.jsonl", shown, "link")


def _without_teacher(row: Example) -> Example:
    """A row of texts as one of a cell: the loss has no part of a teacher."""
    return replace(row, teacher_scores=None)


def _keys(row: Example) -> set[bytes]:
    return {content_key(side) for side in (row.query, *row.documents)}
