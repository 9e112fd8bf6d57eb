"""A folder without a manifest, as a model's authors publish it: whether it can be served, and the
manifest that it would have.

Knows the layouts that hubs have, nothing of networks. Invariant: what is described here is what
both engines load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_store.families.gmr import DEFAULT_INSTRUCTION, MAX_TOKENS, Gmr
from model_store.families.qwen2_5_vl import MERGE, PATCH, TEMPORAL
from model_store.families.qwen2_5_vl_tensors import (
    ARCHITECTURE,
    EMBEDDINGS,
    MODEL_TYPE,
    tensor_shapes,
)
from model_store.families.tokens import LiteralTokenizer
from model_store.folders.covered_files import (
    files_read,
    refuse_adapter,
    refuse_pointers,
    refuse_pooling,
    refuse_unlisted,
)
from model_store.folders.image_processor import pixel_bounds
from model_store.folders.json_files import read_json
from model_store.folders.weights import check_weights, quantization_of
from model_store.golden import GOLDEN
from model_store.manifest import MANIFEST, CheckpointUnusable, Manifest, digest_files

CONFIG = "config.json"
_STATED_TOKENS = {
    "image_token_id": (151_655, "<|image_pad|>"),
    "vision_start_token_id": (151_652, "<|vision_start|>"),
    "vision_end_token_id": (151_653, "<|vision_end|>"),
}
"""Fields of `config.json`, what transformers takes where they are not stated, and the tokens that
they stand for."""
_GEOMETRY = {
    "patch_size": PATCH,
    "temporal_patch_size": TEMPORAL,
    "spatial_merge_size": MERGE,
    "in_channels": 3,
    "in_chans": 3,
}


def describe_folder(name: str, folder: Path, *, weights: bool = True) -> Manifest:
    """The manifest of a folder that has none; raises `CheckpointUnusable` where it cannot be
    served."""
    if (folder / GOLDEN).exists():
        raise CheckpointUnusable(
            f"{name}: it has {GOLDEN} but no {MANIFEST}, so it was not published to the end."
        )
    refuse_unloadable(name, folder, weights=weights)
    bounds = pixel_bounds(name, folder)
    try:
        files = digest_files(folder, files_read(folder))
    except OSError as error:
        raise CheckpointUnusable(
            f"{name}: a file of the folder cannot be read ({error.strerror})."
        ) from None
    return Manifest(
        name=name,
        family=Gmr.name,
        template="code",
        default_instruction=DEFAULT_INSTRUCTION,
        max_tokens=MAX_TOKENS,
        pixels=bounds,
        files=files,
    )


def refuse_unloadable(
    name: str, folder: Path, listed: Manifest | None = None, *, weights: bool = True
) -> None:
    """Raises `CheckpointUnusable` for a folder that one of the engines cannot load, or that they
    would load differently.

    `listed` is the folder's manifest, where it has one. Without `weights` the folder may lack them.
    """
    refuse_adapter(name, folder)
    config = read_config(name, folder)
    if listed is not None:
        refuse_unlisted(name, folder, listed.files)
    refuse_pointers(name, folder, files_read(folder))
    refuse_pooling(name, folder)
    if weights:
        check_weights(name, folder, config)


def refuse_quantised(name: str, folder: Path, consequence: str) -> None:
    """Raises `CheckpointUnusable` for quantised weights, with what follows from that for the
    caller's purpose.

    transformers would need another library for them, or would unpack them to another dtype in
    silence.
    """
    method = quantization_of(folder, read_config(name, folder))
    if method:
        raise CheckpointUnusable(f"{name}: its weights are quantised ({method}), {consequence}.")


def refuse_other_tokens(name: str, folder: Path, tokenizer: LiteralTokenizer) -> None:
    """Raises `CheckpointUnusable` where a tokenizer gives ids that the network of the same folder
    has no place for.

    vLLM finds images by the id that `config.json` states, this service by the tokenizer's.
    """
    config = read_config(name, folder)
    vocabulary = tensor_shapes(config)[EMBEDDINGS][0]
    if tokenizer.size > vocabulary:
        raise CheckpointUnusable(
            f"{name}: its tokenizer has {tokenizer.size} tokens, and the network {vocabulary}."
        )
    for field, (default, token) in _STATED_TOKENS.items():
        stated, found = config.get(field, default), tokenizer.control(token)
        if stated != found:
            raise CheckpointUnusable(
                f"{name}: {field} of {CONFIG} is {stated!r:.40}, and the tokenizer has {token} at"
                f" {found}."
            )


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """`config.json` of a network that can be served; raises `CheckpointUnusable`."""
    config = read_json(name, folder, CONFIG)
    if config is None:
        raise CheckpointUnusable(f"{name}: there is no {CONFIG}.")

    architectures = config.get("architectures")
    known = architectures is None or (
        isinstance(architectures, list) and ARCHITECTURE in architectures
    )
    if not known or config.get("model_type") != MODEL_TYPE:
        raise CheckpointUnusable(
            f"{name}: only {ARCHITECTURE} checkpoints (model_type {MODEL_TYPE}) can be served."
        )
    _refuse_what_is_not_computed(name, config)
    return config


def _refuse_what_is_not_computed(name: str, config: Mapping[str, Any]) -> None:
    """Patches are cut here in one way, and the decoder over shared prefixes sees all tokens."""
    text, vision = config.get("text_config") or config, config.get("vision_config") or {}
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise CheckpointUnusable(
            f"{name}: text_config and vision_config of {CONFIG} must be objects."
        )

    for field, due in _GEOMETRY.items():
        if vision.get(field, due) != due:
            raise CheckpointUnusable(
                f"{name}: {field} of {CONFIG} is {vision[field]!r:.40}, and only {due} is computed."
            )
    window = text.get("sliding_window")
    if text.get("use_sliding_window") and isinstance(window, int) and window < MAX_TOKENS:
        raise CheckpointUnusable(
            f"{name}: {CONFIG} has a sliding window of {window} tokens, less than the {MAX_TOKENS}"
            " of a pair."
        )
