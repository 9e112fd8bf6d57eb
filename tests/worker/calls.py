"""Calls made of texts and pictures, and an engine's verdicts on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random

from model_store.synthetic import cells
from model_store.synthetic.examples import Side
from model_store.synthetic.pictures import fitted
from service.wire import Pixels, Refused, ScoreCall, Scored, WireItem
from service.worker.engines.base import Engine


def as_call(instruction: str, query: Side, documents: Sequence[Side]) -> ScoreCall:
    """A call to gmr-tiny; equal pictures are sent once."""
    images: dict[bytes, Pixels] = {}

    def wire(side: Side) -> WireItem:
        parts: WireItem = []
        for part in side:
            if isinstance(part, str):
                parts.append(part)
            else:
                rgb = fitted(part)
                digest = hashlib.sha256(rgb.tobytes()).digest()
                images.setdefault(digest, Pixels(digest, rgb.shape[1], rgb.shape[0], rgb.tobytes()))
                parts.append(list(images).index(digest))
        return parts

    return ScoreCall(
        "gmr-tiny",
        instruction,
        wire(query),
        [wire(document) for document in documents],
        list(images.values()),
        truncate=True,
    )


def cell_call(cell: str, seed: str, negatives: int = 6) -> ScoreCall:
    """A call of one of the paper's nine cells."""
    example = cells.sample(cell, Random(seed), "heldout", negatives)
    return as_call(example.instruction, example.query, example.documents)


def pictures(count: int, seed: str) -> list[Side]:
    """As many different pictures, each a side of its own."""
    return cells.sample("T-I", Random(seed), "heldout", count - 1).documents


async def verdicts(engine: Engine, call: ScoreCall) -> list[Scored | Refused]:
    """An engine's verdict on each document, in order."""
    by_index = {index: verdict async for index, verdict in engine.score(call)}
    return [by_index[index] for index in range(len(call.documents))]
