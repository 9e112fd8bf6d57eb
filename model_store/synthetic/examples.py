"""Generated examples, and the split of their descriptions into training and held out.

Does not depend on any task or model. Invariant: a description is in exactly one split, by its own
digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from model_store.synthetic.texts import Split

Side = tuple[str | Image.Image, ...]
"""One side of a pair: texts and pictures in order. A picture's `info["words"]` are the words that
are true of it."""

Sampler = Callable[[Random, Split, int], tuple[Side, list[Side]]]
"""Takes a generator, a split and the number of irrelevant documents; returns a query and its
documents, the relevant one first."""


@dataclass(frozen=True, slots=True)
class Example:
    """One query and its documents.

    `documents[0]` is the relevant one. `evidence` are the words that, found in a document, speak
    for its relevance.
    """

    cell: str
    instruction: str
    query: Side
    documents: list[Side]
    evidence: frozenset[str]


def split_of(description: object) -> Split:
    """The split of a description; one in eight is held out."""
    held_out = hashlib.sha256(repr(description).encode()).digest()[0] % 8 == 0
    return "heldout" if held_out else "train"
