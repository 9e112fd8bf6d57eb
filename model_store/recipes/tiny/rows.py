"""The generated cells as `gmr train` reads them: JSONL rows, and pictures beside them as PNG files.

Depends on examples and the form of a row, not on a model. Invariant: a file is a function of its
name, the seed and its number of rows, and no held-out document answers a row's query.
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
"""Cells in proportion to their use: weighing many words that each count a little takes longest to
learn."""
PICTURES = "pictures"


def write_rows(path: Path, count: int, *, names: Sequence[str], seed: int) -> None:
    """Write `count` rows of the named cells; half of them have the default instruction.

    A cell that is named twice is drawn twice as often. All negatives are marked as hard, since not
    every cell marks its near misses. Raises `DataError` where the disk refuses.
    """
    write_examples(path, _rows(path, count, names, Random(f"rows/{path.stem}/{seed}")))


def _rows(path: Path, count: int, names: Sequence[str], rng: Random) -> Iterator[data.Example]:
    folder = path.parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)

    for number in range(count):
        name = rng.choice(names)
        example = cells.sample(name, rng, "train", NEGATIVES, plain=rng.random() < 0.5)
        relevant, *irrelevant = [saved_side(document, folder) for document in example.documents]
        yield data.Example(
            id=f"{path.stem}/{number}",
            instruction=example.instruction,
            query=saved_side(example.query, folder),
            positives=(relevant,),
            negatives=tuple(data.Negative(side, "hard") for side in irrelevant),
            location=str(path),
        )


def saved_side(side: examples.Side, folder: Path) -> data.Side:
    """Save a generated side's picture; returns the side as a row has it: at most one picture, and
    then at most one text."""
    text, image = None, None
    for part in side:
        if isinstance(part, str):
            text = part
        else:
            buffer = io.BytesIO()
            part.save(buffer, "PNG")
            content = buffer.getvalue()
            image = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.png"
            image.write_bytes(content)
    return data.Side(text, image)
