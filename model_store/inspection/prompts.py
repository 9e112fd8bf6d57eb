"""A model's prompt for people: rendered with the names of its slots in their places.

Depends on a family, not on a template: the text is decoded from the token ids that engines read.
Invariant: nothing in a shown prompt is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from model_store.families.family import Family, SideRules
from model_store.families.images import smart_resize
from model_store.families.prompt import Image, Item, Prompt

TEXT, IMAGE, BOTH = "text", "image", "text+image"
_SLOT = re.compile(r"\{\s*(instruction|query|document)\s*\}", re.IGNORECASE)
_CELLS = 4
"""Cells on a side of the image of a shown prompt, where the bounds on its area allow that."""


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """A prompt as text; `query` and `document` are the kinds of items of its pair."""

    query: str
    document: str
    instruction: bool
    """False for the prompt of a call without one."""
    text: str


def modalities(family: Family, side: SideRules) -> list[str]:
    """The kinds of items that a family reads on a side: texts, images, and both in one item."""
    images = family.images is not None and side.max_images != 0
    kinds = {TEXT: side.texts, IMAGE: images, BOTH: side.texts and images and side.mixed}
    return [kind for kind, is_read in kinds.items() if is_read]


def shown_prompts(family: Family) -> list[ShownPrompt]:
    """The prompt of the simplest pair, that of a pair with an image, where images are read, and
    that without an instruction, where there is none by default."""
    shown: list[ShownPrompt] = []
    takes_instruction = family.takes_instruction
    for query, document in _pairs(family):
        shown += _shown(family, query, document, instruction=takes_instruction)
        if takes_instruction and not family.default_instruction and not shown[1:]:
            shown += _shown(family, query, document, instruction=False)
    return shown


def _shown(family: Family, query: str, document: str, *, instruction: bool) -> list[ShownPrompt]:
    """One prompt; none where the family has none for such a pair."""
    (prompt,) = family.render(
        ("{instruction}" if instruction else "",),
        _item("query", query, family),
        [_item("document", document, family)],
        truncate=False,
    )
    if not isinstance(prompt, Prompt):
        return []
    return [ShownPrompt(query, document, instruction, _text(family, prompt))]


def _pairs(family: Family) -> Iterator[tuple[str, str]]:
    queries = modalities(family, family.query_side)
    documents = modalities(family, family.document_side)
    yield queries[0], documents[0]
    if IMAGE in documents and documents[0] != IMAGE:
        yield queries[0], IMAGE
    elif IMAGE in queries and IMAGE not in documents:
        yield IMAGE, documents[0]


def _item(side: str, kind: str, family: Family) -> Item:
    if kind == TEXT:
        return (f"{{{side}}}",)

    rules = family.images
    assert rules is not None
    length = _CELLS * rules.cell
    width, height = smart_resize(
        length,
        length,
        cell=rules.cell,
        min_pixels=rules.min_pixels,
        max_pixels=rules.max_pixels,
    )
    return (Image(side.encode(), width, height),)


def _text(family: Family, prompt: Prompt) -> str:
    """A prompt's ids as text; repeated placeholders of an image are counted."""
    decode = family.tokenizer.decode
    text = decode(prompt.prefix.ids) + decode(prompt.suffix.ids)
    if family.image_token_id is not None:
        placeholder = decode([family.image_token_id])
        for run in re.findall(f"(?:{re.escape(placeholder)}){{2,}}", text):
            text = text.replace(run, f"{placeholder} x {len(run) // len(placeholder)}", 1)

    # tokenizers of words put spaces around braces
    return _SLOT.sub(lambda found: f"{{{found[1].lower()}}}", text)
