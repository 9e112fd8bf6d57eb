"""What every engine does alike: documents into prompts, logits into verdicts, a checkpoint into its
description.

Knows calls and the checkpoint's family, no engine. Invariant: two engines given one call read the
same token ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from model_store.checkpoint import Adapter, Checkpoint, version_of
from model_store.families.family import Family
from model_store.families.prompt import Image, Item, PairTooLong, Prompt, Rendering
from service.errors import PairTooLong as PairTooLongError
from service.wire import (
    ImageRule,
    Pixels,
    Refused,
    ScoreCall,
    Scored,
    Sigmoid,
    WireItem,
    WorkerInfo,
)

PIECE_CHARACTERS = 2**16
"""What one piece of a call's rendering reads, about: some 20 ms of a core. A call gives way to
others after each piece, and one that is abandoned stops after the piece that is being rendered."""
_PART_CHARACTERS = 64
"""What a document or an image takes besides texts, in characters' time."""
CUT = "cut 2"
"""How a text that is too long is cut: a part of every model's digest, for it decides scores."""


class CallRenderer:
    """Makes one call's prompts, a piece at a time. Its methods block: call them off the loop."""

    def __init__(self, checkpoint: Checkpoint, call: ScoreCall) -> None:
        self._checkpoint, self._call = checkpoint, call
        self._rendering: Rendering | None = None

    def prompts(self, documents: Sequence[WireItem]) -> list[Prompt | PairTooLong]:
        """One prompt for each of some of the call's documents, in order."""
        call = self._call
        if self._rendering is None:
            default = self._checkpoint.manifest.default_instruction
            instruction = call.instruction if call.instruction is not None else default
            query = _item(call.query, call.images)
            family = self._checkpoint.family
            self._rendering = family.renderer((instruction,), query, truncate=call.truncate)
        return self._rendering.prompts([_item(document, call.images) for document in documents])


def pieces(documents: Sequence[WireItem]) -> Iterator[range]:
    """Runs of documents by index, each of `PIECE_CHARACTERS` at most or of one document."""
    first, characters = 0, 0
    for index, document in enumerate(documents):
        size = _PART_CHARACTERS + sum(_characters(part) for part in document)
        if first < index and characters + size > PIECE_CHARACTERS:
            yield range(first, index)
            first, characters = index, 0
        characters += size
    if documents:
        yield range(first, len(documents))


def refused(pair: PairTooLong) -> Refused:
    """The verdict on a pair that does not fit."""
    return Refused(PairTooLongError.code, "" if pair.part == "pair" else pair.part)


def image(pixels: Pixels) -> Image:
    """An image as the family knows it."""
    return Image(pixels.digest, pixels.width, pixels.height)


def scored(family: Family, prompt: Prompt, logit: float, reused_tokens: int = 0) -> Scored:
    """The verdict on a prompt that has a score, with the prompt's cost."""
    rules = family.images
    image_tokens = sum(rules.tokens(shown) for shown in prompt.images) if rules else 0
    return Scored(
        logit,
        len(prompt.prefix.ids) + len(prompt.suffix.ids),
        image_tokens,
        prompt.truncated,
        reused_tokens,
    )


def describe(
    checkpoint: Checkpoint,
    adapter: Adapter | None = None,
    *,
    parts: Sequence[str],
    engine: str,
    dtype: str,
    device: str,
) -> WorkerInfo:
    """A model as it is served. Its digest covers files, engine and dtype, and `parts`: what else
    decides a score."""
    manifest, model = checkpoint.manifest, adapter or checkpoint
    transform = checkpoint.transform
    parts = (CUT, *parts, adapter.digest) if adapter else (CUT, *parts)
    digest = hashlib.sha256(
        "\n".join((checkpoint.digest, engine, dtype, *parts)).encode()
    ).hexdigest()
    return WorkerInfo(
        model=model.name,
        digest=f"sha256:{digest}",
        family=manifest.family,
        template=manifest.template,
        default_instruction=manifest.default_instruction,
        max_pair_tokens=manifest.max_tokens,
        images=_image_rule(checkpoint),
        engine=engine,
        dtype=dtype,
        device=device,
        version=version_of(model),
        read_out=checkpoint.readout.name,
        probability=Sigmoid(transform.scale, transform.shift),
        cacheable_side=checkpoint.family.cacheable_side,
    )


def _image_rule(checkpoint: Checkpoint) -> ImageRule | None:
    rules = checkpoint.family.images
    return ImageRule(rules.cell, rules.min_pixels, rules.max_pixels) if rules else None


def _characters(part: str | int) -> int:
    return len(part) if isinstance(part, str) else _PART_CHARACTERS


def _item(item: WireItem, images: Sequence[Pixels]) -> Item:
    return tuple(part if isinstance(part, str) else image(images[part]) for part in item)
