"""A folder without a manifest, as a model's authors publish it: whether it can be served, and the manifest that it would have.

Knows the layouts that hubs have, nothing of networks. Invariant: what is described here is what both engines load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_store.families.gmr import DEFAULT_INSTRUCTION, MAX_TOKENS, Gmr
from model_store.families.qwen2_5_vl_tensors import ARCHITECTURE, MODEL_TYPE
from model_store.folder_files import files_read, refuse_adapter, refuse_pointers, refuse_pooling, refuse_unlisted
from model_store.golden import GOLDEN
from model_store.image_processor import pixel_bounds
from model_store.json_files import read_json
from model_store.manifest import MANIFEST, CheckpointUnusable, Manifest, digest_files
from model_store.weights import check_weights

CONFIG = "config.json"


def describe_folder(name: str, folder: Path, *, weights: bool = True) -> Manifest:
    """The manifest of a folder that has none; raises `CheckpointUnusable` where it cannot be served."""
    if (folder / GOLDEN).exists():
        raise CheckpointUnusable(f"{name}: it has {GOLDEN} but no {MANIFEST}, so it was not published to the end.")
    refuse_unloadable(name, folder, weights=weights)
    bounds = pixel_bounds(name, folder)
    return Manifest(
        name=name,
        family=Gmr.name,
        template="code",
        default_instruction=DEFAULT_INSTRUCTION,
        max_tokens=MAX_TOKENS,
        pixels=bounds,
        files=digest_files(folder, files_read(folder)),
    )


def refuse_unloadable(name: str, folder: Path, listed: Manifest | None = None, *, weights: bool = True) -> None:
    """Raises `CheckpointUnusable` for a folder that one of the engines cannot load, or that they would load differently.

    `listed` is the folder's manifest, where it has one. Without `weights` the folder may lack them.
    """
    refuse_adapter(name, folder)
    if listed is not None:
        refuse_unlisted(name, folder, listed.files)
    refuse_pointers(name, folder, files_read(folder))
    refuse_pooling(name, folder)
    config = read_config(name, folder)
    if weights:
        check_weights(name, folder, config)


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """`config.json` of a network that can be served; raises `CheckpointUnusable`."""
    config = read_json(name, folder, CONFIG)
    if config is None:
        raise CheckpointUnusable(f"{name}: there is no {CONFIG}.")

    architectures = config.get("architectures")
    known = architectures is None or (isinstance(architectures, list) and ARCHITECTURE in architectures)
    if not known or config.get("model_type") != MODEL_TYPE:
        raise CheckpointUnusable(f"{name}: only {ARCHITECTURE} checkpoints (model_type {MODEL_TYPE}) can be served.")
    return config
