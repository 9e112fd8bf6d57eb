"""Files of judged rows, drawn from the generated texts."""

from __future__ import annotations

from pathlib import Path
from random import Random

from model_store.synthetic import cells
from tests.model_store.training.rows import write_rows

OTHER = "Find a text."


def write_judged(path: Path, rows: int, negatives: int = 3, *, others: int = 0) -> Path:
    """Rows of the default instruction, and then `others` rows of the instruction `OTHER`."""
    written = []
    for number in range(rows + others):
        drawn = cells.sample("T-T", Random(f"judged/{number}"), "train", negatives, plain=True)
        relevant, *irrelevant = [document[0] for document in drawn.documents]
        row = {"query": drawn.query[0], "positives": [relevant], "negatives": irrelevant}
        if number >= rows:
            row["instruction"] = OTHER
        written.append(row)
    return write_rows(path, written)
