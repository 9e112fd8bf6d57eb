"""The generated cells as `gmr train` reads them: JSONL rows, and their pictures beside them as PNG
files.

Knows examples and the row's form, no model. Invariant: a file is a function of its name, the seed
and how many rows it has; no document of it that answers its query is held out.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from model_store.synthetic import cells, examples
from model_store.training.data import rows as data
from model_store.training.data.row_files import write_examples

NEGATIVES = 9
"""Irrelevant documents of a row; an epoch may draw fewer."""
SHARES = (*cells.CELLS, *["T-T"] * 3, "T-I", "T-VD", "I-T", "IT-I")
"""Cells, as often as answers are learnt from them: many words that each count a little take longest
to weigh."""
PICTURES = "pictures"


def write_rows(path: Path, count: int, *, names: Sequence[str], seed: int) -> None:
    """Write `count` rows of the named cells, one named twice twice as often; half of them ask with
    the default instruction.

    Not every cell has its near misses in known places: all negatives go as hard ones. Raises
    `DataError` where the disk refuses.
    """
    write_examples(path, _rows(path, count, names, Random(f"rows/{path.stem}/{seed}")))


def _rows(path: Path, count: int, names: Sequence[str], rng: Random) -> Iterator[data.Example]:
    folder = path.parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        example = cells.sample(rng.choice(names), rng, "train", NEGATIVES, plain=rng.random() < 0.5)
        relevant, *others = (saved_side(document, folder) for document in example.documents)
        yield data.Example(
            id=f"{path.stem}/{number}",
            instruction=example.instruction,
            query=saved_side(example.query, folder),
            positives=(relevant,),
            negatives=tuple(data.Negative(side, "hard") for side in others),
            location=str(path),
        )


def saved_side(side: examples.Side, folder: Path) -> data.Side:
    """A generated side as a row has it, its picture saved: at most one picture, which comes first,
    and at most one text."""
    text, image = None, None
    for part in side:
        if isinstance(part, str):
            text = part
        else:
            packed = io.BytesIO()
            part.save(packed, "PNG")
            image = folder / f"{hashlib.sha256(packed.getvalue()).hexdigest()[:16]}.png"
            image.write_bytes(packed.getvalue())
    return data.Side(text, image)
