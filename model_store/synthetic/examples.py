"""What a training example is, and how descriptions are kept for training or held out.

Knows no task and no model. Invariant: a description is in one part only, by its own digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from model_store.synthetic.texts import Split

Side = tuple[str | Image.Image, ...]
"""One side of a pair, texts and pictures in order. A picture's `info["words"]` are the words that
are true of it."""

Sampler = Callable[[Random, Split, int], tuple[Side, list[Side]]]
"""(generator, part, number of irrelevant documents) to a query and its documents, the relevant one
first."""


@dataclass(frozen=True, slots=True)
class Example:
    """One query and its documents; `documents[0]` is the relevant one, `evidence` the words that
    would speak for relevance."""

    cell: str
    instruction: str
    query: Side
    documents: list[Side]
    evidence: frozenset[str]


def part_of(description: object) -> Split:
    """Which part a description belongs to; one in eight is held out."""
    return "heldout" if hashlib.sha256(repr(description).encode()).digest()[0] % 8 == 0 else "train"
