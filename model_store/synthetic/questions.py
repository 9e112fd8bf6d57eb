"""Golden pairs without scores: two of each of the nine cells, for a checkpoint that has no golden
pairs of its own.

Does not depend on networks. Invariant: every call returns the same pairs.
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
        for document in example.documents:
            pairs.append(GoldenPair(cell, example.instruction, query, _fitted(document), math.nan))
    return pairs


def _fitted(side: examples.Side) -> Side:
    return tuple(part if isinstance(part, str) else fitted(part) for part in side)
