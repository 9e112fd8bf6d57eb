"""Golden pairs that are not scored yet: two of each of the nine cells, for whatever checkpoint has
none of its own.

Knows the generated cells, no network. Invariant: always the same pairs.
"""

from __future__ import annotations

import math
from random import Random

from model_store.golden import GoldenPair, Side
from model_store.synthetic import cells, examples
from model_store.synthetic.pictures import fitted


def golden_questions() -> list[GoldenPair]:
    """A relevant and an irrelevant pair of each cell; their logits are NaN."""
    pairs = []
    for cell in cells.CELLS:
        example = cells.sample(cell, Random(f"golden/{cell}"), "heldout", 1)
        query = _fitted(example.query)
        pairs += [
            GoldenPair(cell, example.instruction, query, _fitted(document), math.nan)
            for document in example.documents
        ]
    return pairs


def _fitted(side: examples.Side) -> Side:
    return tuple(part if isinstance(part, str) else fitted(part) for part in side)
