"""Draws the sample of training rows that ships: `python -m model_store.recipes.tiny.sample FOLDER`.

Depends on the generated cells and the form of a row. Invariant: the same program draws the same
rows, and pictures of the same pixels. No two documents of the corpus are equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from PIL import Image

from model_store.output_files import output_file
from model_store.synthetic import cells, examples, facts
from model_store.training.data import rows as data
from model_store.training.data.corpus import Document, document_line
from model_store.training.data.identity import content_key, image_digest
from model_store.training.data.row_files import example_line

ROWS = (*cells.CELLS, *cells.CELLS, "T-T", "I-I", "T-I", "T-VD", "I-T", "IT-I")
"""The cell of each row: each of the nine twice, and six of them once more."""
OTHERS = 1
"""Irrelevant documents of the corpus for each row's relevant one."""
_SEED = "sample"
_FACTS = facts.facts(
    lambda fact, rng: (fact.question(rng, named=True),),
    lambda fact, rng: (fact.statement(rng, named=True),),
)


def draw(folder: Path) -> None:
    """Write `rows.jsonl`, `rows.corpus.jsonl` and `images/`; raises `DataError`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    with (
        output_file(folder / "rows.jsonl") as row,
        output_file(folder / "rows.corpus.jsonl") as document,
    ):
        for number, cell in enumerate(ROWS, 1):
            example, documents = _drawn(number, cell, folder, seen)
            row(example_line(example, folder))
            for index, side in enumerate(documents):
                document(document_line(Document(f"d{number:02}-{index}", side), folder))


def _drawn(
    number: int, cell: str, folder: Path, seen: set[bytes]
) -> tuple[data.Example, list[data.Side]]:
    """The row of a number and its documents, drawn again until no side of it was drawn before."""
    for attempt in range(100):
        drawn = _example(cell, Random(f"{_SEED}/{number}/{attempt}"))
        image_digest.cache_clear()  # files of the attempt before have the same names
        sides = list(_saved(drawn, number, folder))
        keys = {content_key(side) for side in sides}
        if len(keys) == len(sides) and not keys & seen:
            break

    seen |= keys
    query, *documents = sides
    name = f"{cell}/{number:02}"
    return data.Example(name, drawn.instruction, query, (documents[0],), (), name), documents


def _example(cell: str, rng: Random) -> examples.Example:
    """An example of a cell; one of texts alone is about facts, whose words are all generated."""
    if cell != "T-T":
        return cells.sample(cell, rng, "train", OTHERS)

    query, documents = _FACTS(rng, "train", OTHERS)
    return examples.Example(cell, cells.INSTRUCTIONS[cell], query, documents, frozenset())


def _saved(drawn: examples.Example, number: int, folder: Path) -> Iterator[data.Side]:
    """Query and documents as a row has them, their pictures saved by number and role."""
    for index, side in enumerate((drawn.query, *drawn.documents)):
        text, image = None, None
        for part in side:
            if isinstance(part, str):
                text = part
            else:
                role = "query" if index == 0 else f"d{index - 1}"
                image = folder / "images" / f"{number:02}-{role}.png"
                part.quantize(64, dither=Image.Dither.NONE).save(image, "PNG", optimize=True)
        yield data.Side(text, image)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
