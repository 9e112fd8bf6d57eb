"""Golden pairs for a model that has none, and the manifest that makes them its start-up gate.

Depends on a checkpoint and a way to score it, not on an engine. Invariant: a folder gets its
manifest last, by one rename, and a folder in which the work was interrupted is refused by `gmr
serve` or is as it was before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from model_store.checkpoint import Checkpoint
from model_store.families.family import Family
from model_store.families.images import smart_resize
from model_store.folders.covered_files import files_read
from model_store.golden import GOLDEN, GoldenPair, Side, write_golden
from model_store.inspection.prompts import modalities
from model_store.inspection.reference import Reference, versions
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    Manifest,
    digest_files,
    write_manifest,
)
from model_store.synthetic import cells, examples
from model_store.training.publish.folder import draft_of

MAX_PAIRS = 256
_KINDS = {"T": "text", "I": "image", "VD": "image", "IT": "text+image"}
"""Kinds of items by their names in cells: a VD is a page as a picture."""
_BESIDE = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "MODEL_CARD.md")
"""Files that loaders do not read, and that a copy of a model must have."""

Advance = Callable[[int], None]


def cells_read(family: Family) -> list[str]:
    """The generated cells whose queries and documents a family reads."""
    queries = modalities(family, family.query_side)
    documents = modalities(family, family.document_side)
    read = []
    for cell in cells.CELLS:
        query, _, document = cell.partition("-")
        if _KINDS[query] in queries and _KINDS[document] in documents:
            read.append(cell)
    return read


def questions(family: Family, count: int) -> list[GoldenPair]:
    """`count` pairs without scores, over every cell that a family reads in turn.

    Relevant and irrelevant documents alternate. Raises `CheckpointUnusable` where there are more
    cells than pairs.
    """
    read = cells_read(family)
    if not read:
        raise CheckpointUnusable(f"There are no generated pairs that {family.name} reads.")
    if count < len(read):
        raise CheckpointUnusable(
            f"The model reads {len(read)} kinds of pairs: --golden is at least {len(read)}."
        )

    pairs: list[GoldenPair] = []
    number = 0
    while len(pairs) < count:
        sample, is_irrelevant = divmod(number, 2)
        for cell in read[: count - len(pairs)]:
            example = cells.sample(cell, Random(f"golden/{cell}/{sample}"), "heldout", 1)
            instruction = example.instruction if family.takes_instruction else ""
            query = _fitted(example.query, family)
            document = _fitted(example.documents[is_irrelevant], family)
            pairs.append(GoldenPair(cell, instruction, query, document, 0.0))
        number += 1
    return pairs


def score_all(
    reference: Reference, pairs: Sequence[GoldenPair], advance: Advance
) -> list[GoldenPair]:
    """The pairs with their raw scores."""
    scored = []
    for pair in pairs:
        scored.append(replace(pair, logit=reference.score(pair)))
        advance(1)
    return scored


def refuse_unless_open(checkpoint: Checkpoint, output: Path | None) -> None:
    """Raise `CheckpointUnusable` where the result could not be written, before anything is
    scored."""
    if (checkpoint.folder / MANIFEST).exists():
        raise CheckpointUnusable(
            f"{checkpoint.name} has a {MANIFEST}: a published folder is never changed."
        )
    if output is not None and output.exists():
        raise CheckpointUnusable(f"{output} is there already.")
    if output is None and not os.access(checkpoint.folder, os.W_OK):
        raise CheckpointUnusable(
            f"{checkpoint.name}: its folder cannot be written to: give --output."
        )


def write(
    checkpoint: Checkpoint, pairs: Sequence[GoldenPair], way: str, output: Path | None
) -> Checkpoint:
    """Write pairs and manifest into the checkpoint's folder, or into the new folder `output`, which
    gets links to its files, or copies on another file system. Returns what was written."""
    lineage = _lineage(checkpoint, len(pairs), way)
    if output is None:
        manifest = _write_into(checkpoint, pairs, lineage)
        return Checkpoint(manifest.name, checkpoint.folder, manifest)

    with draft_of(output) as draft:
        beside = [name for name in _BESIDE if (checkpoint.folder / name).is_file()]
        for name in (*files_read(checkpoint.folder), *beside):
            _link(checkpoint.folder / name, draft / name)
        added = [*beside, *write_golden(draft, pairs)]
        manifest = _seal(draft, output.name, checkpoint, added, lineage)
    return Checkpoint(manifest.name, output, manifest)


def _write_into(
    checkpoint: Checkpoint, pairs: Sequence[GoldenPair], lineage: dict[str, Any]
) -> Manifest:
    folder = checkpoint.folder
    pictures = folder / Path(GOLDEN).stem
    had_pictures = pictures.exists()
    try:
        golden = write_golden(folder, pairs)
        return _seal(folder, checkpoint.name, checkpoint, golden, lineage)
    except BaseException:
        # a folder with pairs and no manifest would be refused
        (folder / GOLDEN).unlink(missing_ok=True)
        if not had_pictures:
            shutil.rmtree(pictures, ignore_errors=True)
        raise


def _seal(
    folder: Path, name: str, checkpoint: Checkpoint, added: Sequence[str], lineage: dict[str, Any]
) -> Manifest:
    """Write a checkpoint's manifest into a folder that has its files and the `added` ones.

    Digests of its own files are those of its manifest: a worker compares them at its start.
    """
    files = {**checkpoint.manifest.files, **digest_files(folder, added)}
    described = checkpoint.manifest.model_dump() | {
        "name": name,
        "lineage": lineage,
        "files": files,
    }
    manifest = Manifest.model_validate(described)
    write_manifest(folder, manifest)
    return manifest


def _lineage(checkpoint: Checkpoint, count: int, way: str) -> dict[str, Any]:
    golden = {"pairs": count, "way": way, "versions": versions()}
    return {"source": checkpoint.name, "golden": golden}


def _link(source: Path, target: Path) -> None:
    """A link to a file, or a copy of it on another file system. A hub's cache has symbolic
    links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = source.resolve()
    try:
        os.link(whole, target)
    except OSError:
        shutil.copyfile(whole, target)


def _fitted(side: examples.Side, family: Family) -> Side:
    """A side with its pictures in a size that the family reads."""
    parts: list[str | np.ndarray] = []
    for part in side:
        parts.append(part if isinstance(part, str) else _resized(part, family))
    return tuple(parts)


def _resized(picture: Image.Image, family: Family) -> np.ndarray:
    rules = family.images
    assert rules is not None
    size = smart_resize(
        *picture.size, cell=rules.cell, min_pixels=rules.min_pixels, max_pixels=rules.max_pixels
    )
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture)
