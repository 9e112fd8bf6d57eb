"""A second checkpoint like gmr-tiny: the same name, other weights and scores, published as any
checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file

from model_store.evaluation.naive import NaiveReranker
from model_store.golden import GoldenPair, Side, read_golden, write_golden
from model_store.manifest import digest_files, read_manifest, write_manifest
from tests.conftest import TINY

WEIGHTS = "model.safetensors"


def publish_newer(folder: Path) -> Path:
    """gmr-tiny with its last norm scaled, golden pairs and manifest to match."""
    shutil.copytree(TINY, folder)
    weights = load_file(folder / WEIGHTS)
    (norm,) = [
        name
        for name in weights
        if name.endswith("language_model.norm.weight") or name == "model.norm.weight"
    ]
    weights[norm] = weights[norm] * 0.75
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    reference = NaiveReranker(folder)
    golden = write_golden(folder, [_scored(reference, pair) for pair in read_golden(folder)])
    manifest = read_manifest(folder)
    assert manifest
    files = manifest.files | digest_files(folder, [WEIGHTS, *golden])
    write_manifest(folder, manifest.model_copy(update={"files": files}))
    return folder


def _scored(reference: NaiveReranker, pair: GoldenPair) -> GoldenPair:
    return replace(
        pair, logit=reference.logit(pair.instruction, _shown(pair.query), _shown(pair.document))
    )


def _shown(side: Side) -> list[str | Image.Image]:
    return [part if isinstance(part, str) else Image.fromarray(part) for part in side]
