"""A model as `gmr serve` would serve it: its family and the reason, its prompt, its scores, its
limits and its files.

Depends on a folder's files and loads no network. Invariant: a model that is described here passes
the checks of `gmr serve` before weights are loaded, and a refusal is the sentence that `gmr serve`
gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.checkpoint import SHIPPED, Checkpoint, resolve, shipped
from model_store.families.catalogue import family_of, recognitions
from model_store.folders.image_processor import image_settings
from model_store.folders.plain import folder_facts, read_config
from model_store.folders.weights import (
    count_parameters,
    quantization_of,
    stored_tensors,
    weight_files,
)
from model_store.golden import UNREADABLE, read_golden, unreadable
from model_store.inspection.engines import engine_refusals
from model_store.inspection.prompts import ShownPrompt, modalities, shown_prompts
from model_store.manifest import WEIGHTS_SUFFIX, CheckpointUnusable, read_manifest, verify
from model_store.registry.references import is_reference


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights as the headers of their files describe them."""

    files: int
    bytes: int
    parameters: int
    dtypes: tuple[str, ...]
    quantised: str
    """The method, or empty."""


@dataclass(frozen=True, slots=True)
class ReadImages:
    """The sizes of images that a model reads, in pixels and in tokens."""

    cell: int
    min_pixels: int
    max_pixels: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """The description of a model."""

    name: str
    digest: str
    has_manifest: bool
    family: str
    reason: str
    """A clause: the reason for the family."""
    others: dict[str, str]
    """Other families that recognise the folder, with their reasons."""
    architecture: str
    template: str
    prompts: tuple[ShownPrompt, ...]
    takes_instruction: bool
    default_instruction: str
    read_out: str
    transform: str
    cacheable_side: str
    query: tuple[str, ...]
    document: tuple[str, ...]
    """Kinds of items that are read on each side."""
    max_query_images: int | None
    max_document_images: int | None
    """Images in one item; None: any number."""
    max_tokens: int
    images: ReadImages | None
    assumed: dict[str, Any]
    """Defaults of the family in the place of fields that the folder does not state."""
    golden_pairs: int
    engines: dict[str, str]
    """A sentence for each engine that refuses the model; empty for one that serves it."""
    files: dict[str, int]
    """The files that the digest covers, with their bytes."""
    weights: Weights | None
    weights_refusal: str
    """The sentence with which `gmr serve` refuses a folder without weights; empty with them."""


def find(
    name: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    registry: str | None = None,
    family: str | None = None,
) -> Checkpoint:
    """The checkpoint of a name, as `resolve` finds it; its folder may lack weights, and those of a
    hub are not downloaded. Raises `CheckpointUnusable`."""
    folder = SHIPPED / name if name in shipped() else Path(name)
    weights = _holds_weights(folder) if folder.is_dir() else is_reference(name)
    return resolve(
        name, revision=revision, cache=cache, registry=registry, weights=weights, family=family
    )


def inspect_checkpoint(checkpoint: Checkpoint, *, named: bool = False) -> Inspection:
    """The description of a checkpoint; `named` if its family was named by the operator.

    Raises `CheckpointUnusable` for a checkpoint that `gmr serve` refuses.
    """
    manifest, family = checkpoint.manifest, checkpoint.family
    folder = checkpoint.folder
    reason, others = _recognition(checkpoint, named=named)
    weights, refusal = _weights(checkpoint)
    _ = checkpoint.transform  # an unknown one is refused

    return Inspection(
        name=checkpoint.name,
        digest=checkpoint.digest,
        has_manifest=read_manifest(folder) is not None,
        family=manifest.family,
        reason=reason,
        others=others,
        architecture=checkpoint.architecture.name,
        template=manifest.template,
        prompts=tuple(shown_prompts(family)),
        takes_instruction=family.takes_instruction,
        default_instruction=manifest.default_instruction,
        read_out=checkpoint.readout.name,
        transform=manifest.transform,
        cacheable_side=family.cacheable_side,
        query=tuple(modalities(family, family.query_side)),
        document=tuple(modalities(family, family.document_side)),
        max_query_images=family.query_side.max_images,
        max_document_images=family.document_side.max_images,
        max_tokens=manifest.max_tokens,
        images=_read_images(checkpoint),
        assumed=_assumed(checkpoint),
        golden_pairs=_golden_pairs(folder),
        engines=engine_refusals(checkpoint),
        files={file: digest.bytes for file, digest in sorted(manifest.files.items())},
        weights=weights,
        weights_refusal=refusal,
    )


def _read_images(checkpoint: Checkpoint) -> ReadImages | None:
    rules = checkpoint.family.images
    if rules is None:
        return None
    most = rules.max_pixels // rules.cell**2
    return ReadImages(rules.cell, rules.min_pixels, rules.max_pixels, most)


def _holds_weights(folder: Path) -> bool:
    """False where a folder has the other files of a model alone. Weights of a form that is refused
    are weights, too."""
    return any(any(folder.glob(f"*{suffix}")) for suffix in (WEIGHTS_SUFFIX, ".bin"))


def _recognition(checkpoint: Checkpoint, *, named: bool) -> tuple[str, dict[str, str]]:
    """The reason for a checkpoint's family, and the reasons for others."""
    own = checkpoint.manifest.family
    facts = folder_facts(checkpoint.name, checkpoint.folder)
    reasons = {kind.name: found.reason for kind, found in recognitions(facts)}
    reason = reasons.pop(own, "")
    if read_manifest(checkpoint.folder) is not None:
        reason = "its manifest says so"
    elif named:
        reason = "it was named so"
    return reason, reasons


def _assumed(checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of a folder without a manifest that its files do not state, with their values."""
    if read_manifest(checkpoint.folder) is not None:
        return {}

    manifest, facts = checkpoint.manifest, folder_facts(checkpoint.name, checkpoint.folder)
    described = family_of(manifest).describe(facts)
    assumed = {
        "template": manifest.template,
        "default_instruction": manifest.default_instruction,
        "max_tokens": manifest.max_tokens,
        "read_out": checkpoint.readout.name,
        "transform": manifest.transform,
    }
    if not checkpoint.family.takes_instruction:
        del assumed["default_instruction"]
    if manifest.pixels is not None and image_settings(checkpoint.name, facts.folder) is None:
        assumed["pixels"] = manifest.pixels.model_dump()
    return {field: value for field, value in assumed.items() if field not in described.stated}


def _golden_pairs(folder: Path) -> int:
    try:
        return len(read_golden(folder))
    except UNREADABLE:
        raise CheckpointUnusable(unreadable(folder)) from None


def _weights(checkpoint: Checkpoint) -> tuple[Weights | None, str]:
    """The weights, or None and the sentence of a folder without them."""
    name, folder = checkpoint.name, checkpoint.folder
    listed = read_manifest(folder)
    try:
        if listed is not None and not _holds_weights(folder):
            verify(folder, listed)
        files = weight_files(name, folder)
    except CheckpointUnusable as refusal:
        return None, str(refusal)

    weights = Weights(
        files=len(files),
        bytes=sum((folder / file).stat().st_size for file in files),
        parameters=count_parameters(name, folder),
        dtypes=tuple(sorted({tensor.dtype for tensor in stored_tensors(name, folder)})),
        quantised=quantization_of(folder, read_config(name, folder)),
    )
    return weights, ""
