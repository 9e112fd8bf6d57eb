"""A new version of a checkpoint with a calibration: the same files, and another manifest.

Depends on files, not on networks. Invariant: the new version's scores have the digest of the old
one's, so that cached scores stay valid, and its folder is complete or absent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from model_store.calibration.description import (
    CALIBRATION,
    MAX_INSTRUCTIONS,
    Calibration,
    InstructionMap,
)
from model_store.checkpoint import Checkpoint
from model_store.golden import GOLDEN
from model_store.manifest import MANIFEST, Manifest, write_manifest
from model_store.training.publish.folder import draft_of
from model_store.training.publish.pairs import PublishRefused


def refuse_unless_published(checkpoint: Checkpoint) -> None:
    """Raise `PublishRefused` for a model without a manifest, which has no place for a
    calibration."""
    if not (checkpoint.folder / MANIFEST).exists():
        raise PublishRefused(
            f"{checkpoint.name} has no {MANIFEST}, which keeps a calibration: `gmr models inspect"
            " --golden` makes one."
        )


def calibration_of(checkpoint: Checkpoint, maps: Sequence[InstructionMap]) -> Calibration:
    """The checkpoint's calibration with `maps`; those of other instructions that it has already
    are kept.

    Raises `PublishRefused` where there are too many.
    """
    found = checkpoint.calibration
    merged = {each.instruction: each for each in (() if found is None else found.maps)}
    merged |= {each.instruction: each for each in maps}
    if len(merged) > MAX_INSTRUCTIONS:
        raise PublishRefused(
            f"{checkpoint.name} would have maps for {len(merged)} instructions, and"
            f" {MAX_INSTRUCTIONS} are allowed."
        )
    return Calibration(
        model=checkpoint.digest,
        prompt=checkpoint.family.fingerprint,
        maps=tuple(merged.values()),
    )


def write_calibrated(checkpoint: Checkpoint, calibration: Calibration, output: Path) -> Manifest:
    """Write the new folder `output`, with links to the checkpoint's files, or copies on another
    file system; raises `PublishRefused` where it exists or cannot be written."""
    lineage = checkpoint.manifest.lineage | {CALIBRATION: calibration.model_dump(mode="json")}
    described = checkpoint.manifest.model_dump() | {"lineage": lineage}
    manifest = Manifest.model_validate(described)

    with draft_of(output) as draft:
        for name in manifest.files:
            _link(checkpoint.folder / name, draft / name)
        if GOLDEN not in manifest.files:
            (draft / GOLDEN).unlink()
        write_manifest(draft, manifest)
    return manifest


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    whole = source.resolve()
    try:
        os.link(whole, target)
    except OSError:
        shutil.copyfile(whole, target)
