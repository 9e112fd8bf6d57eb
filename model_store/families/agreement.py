"""Two families that both recognise a folder: one by its name, one by the folder's own files.

Depends on the seam, not on a particular family. Invariant: a named family that would score ordinary
pairs in another way than the folder's files state is found.
"""

from __future__ import annotations

from collections.abc import Sequence

from model_store.families.family import Family, FamilyKind
from model_store.families.prompt import Image, Item, Prompt
from model_store.families.recognition import FolderFacts
from model_store.families.tokens import LiteralTokenizer, TokenizerMismatch
from model_store.manifest import CheckpointUnusable, Manifest

_QUERY: Item = ("Which city is it?",)
_DOCUMENT: Item = ("Berlin, 1989",)
_INSTRUCTION = "Find the city that the picture shows"
_CELLS = 4
"""Cells of a side of the image that is shown to families that read images."""


def difference(facts: FolderFacts, named: FamilyKind, described: FamilyKind) -> str:
    """The thing that a named family reads in another way than a folder's files state.

    Empty where nothing differs, and where the files cannot be opened to be compared: then the name
    stands.
    """
    try:
        tokenizer = LiteralTokenizer.load(facts.folder)
        stated = _opened(facts, described, tokenizer)
    except (CheckpointUnusable, OSError, TokenizerMismatch):
        return ""

    # an activation that leaves the raw score as it is says nothing of a probability
    if described.describe(facts).transform not in ("identity", named.describe(facts).transform):
        return "activation"
    try:
        own = _opened(facts, named, tokenizer)
    except CheckpointUnusable:
        return "labels"  # or control tokens that the vocabulary lacks
    if own.label_ids != stated.label_ids:
        return "labels"

    documents = [_DOCUMENT]
    if own.images and stated.images and own.images.cell == stated.images.cell:
        side = _CELLS * own.images.cell
        documents.append((Image(b"p" * 32, side, side),))
    instructions = [""]
    if own.takes_instruction and stated.takes_instruction:
        instructions.append(_INSTRUCTION)
    for instruction in instructions:
        if _ids(own, instruction, documents) != _ids(stated, instruction, documents):
            return "prompt"
    return ""


def _opened(facts: FolderFacts, kind: FamilyKind, tokenizer: LiteralTokenizer) -> Family:
    described = kind.describe(facts)
    manifest = Manifest(
        name=facts.name,
        family=kind.name,
        template=described.template,
        default_instruction=described.default_instruction,
        max_tokens=described.max_tokens,
        pixels=described.pixels,
        files={},
        read_out=described.read_out,
        transform=described.transform,
    )
    return kind.open(manifest, facts.folder, tokenizer, facts.network)


def _ids(
    family: Family, instruction: str, documents: Sequence[Item]
) -> list[tuple[int, ...] | None]:
    """Ids of pairs, with the family's own instruction where none is given; None for a refusal."""
    text = instruction or family.default_instruction
    found = family.render((text,) if text else (), _QUERY, documents)
    return [pair.ids if isinstance(pair, Prompt) else None for pair in found]
