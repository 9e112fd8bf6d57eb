"""What every scorer does alike: documents into prompts, logits into verdicts, a checkpoint into its description.

Knows calls and the checkpoint's family, no engine. Invariant: two scorers given one call read the same token ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from model_store.families.prompt import Image, Item, PairTooLong, Prompt
from model_store.families.qwen2_5_vl import CELL, image_tokens
from model_store.registry import Adapter, Checkpoint, version_of
from service.contracts import ImageRule, Pixels, ScoreCall, Scored, WireItem, WorkerInfo


def render(checkpoint: Checkpoint, call: ScoreCall, documents: Sequence[WireItem]) -> list[Prompt | PairTooLong]:
    """One prompt for each of some of a call's documents, in order. Blocking: call it off the loop."""
    instruction = call.instruction if call.instruction is not None else checkpoint.manifest.default_instruction
    items = [_item(document, call.images) for document in documents]
    return checkpoint.family.render((instruction,), _item(call.query, call.images), items, truncate=call.truncate)


def image(pixels: Pixels) -> Image:
    """An image as the family knows it."""
    return Image(pixels.digest, pixels.width, pixels.height)


def scored(prompt: Prompt, logit: float, reused_tokens: int = 0) -> Scored:
    """What became of a prompt, and what it cost."""
    pictures = sum(map(image_tokens, prompt.images))
    return Scored(logit, len(prompt.prefix.ids) + len(prompt.suffix.ids), pictures, prompt.truncated, reused_tokens)


def describe(
    checkpoint: Checkpoint, adapter: Adapter | None = None, *, parts: Sequence[str], engine: str, dtype: str, device: str
) -> WorkerInfo:
    """A model as it is served. Its digest covers files, engine and dtype, and `parts`: what else decides a score."""
    manifest, model = checkpoint.manifest, adapter or checkpoint
    parts = (*parts, adapter.digest) if adapter else parts
    digest = hashlib.sha256("\n".join((checkpoint.digest, engine, dtype, *parts)).encode()).hexdigest()
    return WorkerInfo(
        model=model.name,
        digest=f"sha256:{digest}",
        family=manifest.family,
        template=manifest.template,
        default_instruction=manifest.default_instruction,
        max_pair_tokens=manifest.max_tokens,
        images=ImageRule(CELL, manifest.pixels.min_pixels, manifest.pixels.max_pixels),
        engine=engine,
        dtype=dtype,
        device=device,
        version=version_of(model),
    )


def _item(item: WireItem, images: Sequence[Pixels]) -> Item:
    return tuple(part if isinstance(part, str) else image(images[part]) for part in item)
