"""The list of families: by the name in a manifest, and by the network of a plain folder.

Depends on every family, and is the only module that does. Invariant: each family has a name and an
architecture of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.families.family import Family
from model_store.families.gmr import Gmr
from model_store.families.qwen3_reranker import Qwen3Reranker
from model_store.families.readout import ReadOut
from model_store.families.template import TemplateFamily
from model_store.families.tokens import LiteralTokenizer, TokenizerMismatch
from model_store.manifest import CheckpointUnusable, Manifest

FAMILIES: Mapping[str, type[TemplateFamily]] = {
    family.name: family for family in (Gmr, Qwen3Reranker)
}


def family_class(manifest: Manifest) -> type[TemplateFamily]:
    """The family that a manifest names; raises `CheckpointUnusable` for one that is not known."""
    try:
        return FAMILIES[manifest.family]
    except KeyError:
        raise CheckpointUnusable(
            f"{manifest.name}: the model family {manifest.family!r} is not known."
        ) from None


def family_class_for(architecture: str) -> type[TemplateFamily]:
    """The family of a folder that has no manifest, by its network; raises `KeyError`."""
    for family in FAMILIES.values():
        if family.architecture == architecture:
            return family
    raise KeyError(architecture)


def published_configs() -> dict[str, Mapping[str, Any]]:
    """`config.json` of the models that the families' authors published, by name."""
    configs: dict[str, Mapping[str, Any]] = {}
    for family in FAMILIES.values():
        configs |= family.published
    return configs


def readout_of(manifest: Manifest) -> ReadOut:
    """The read-out that a manifest names, or its family's default; raises `CheckpointUnusable`."""
    family = family_class(manifest)
    if not manifest.read_out:
        return family.readouts[0]

    for readout in family.readouts:
        if readout.name == manifest.read_out:
            return readout
    raise CheckpointUnusable(
        f"{manifest.name}: the family {family.name} has no read-out {manifest.read_out!r}; it has"
        f" {' and '.join(repr(readout.name) for readout in family.readouts)}."
    )


def trained_readout(manifest: Manifest, direction: str) -> ReadOut:
    """The read-out that a loss trains along `direction`, `sft` or `cl`.

    The two are equations 1 and 2 of the paper.
    """
    supervised, contrastive = family_class(manifest).readouts
    return supervised if direction == "sft" else contrastive


def open_family(
    manifest: Manifest, tokenizer: LiteralTokenizer, *, max_tokens: int | None = None
) -> Family:
    """A manifest's family around a tokenizer; raises `CheckpointUnusable`.

    `max_tokens` is a lower limit than the manifest's, for training on shorter pairs.
    """
    kind = family_class(manifest)
    if manifest.template not in kind.templates:
        raise CheckpointUnusable(
            f"{manifest.name}: the template {manifest.template!r} is not known."
        )
    if (manifest.pixels is None) != (kind.image_template is None):
        states, reads = ("no", "images") if manifest.pixels is None else ("some", "text only")
        raise CheckpointUnusable(
            f"{manifest.name}: its manifest states {states} pixel bounds, and the family"
            f" {kind.name} reads {reads}."
        )

    try:
        return kind(
            tokenizer,
            template=manifest.template,
            max_tokens=manifest.max_tokens if max_tokens is None else max_tokens,
            readout=readout_of(manifest),
            pixels=manifest.pixels,
        )
    except (TokenizerMismatch, ValueError) as error:
        raise CheckpointUnusable(f"{manifest.name}: {error}.") from None
