"""Qwen3-VL's vision tower: patches of 16 pixels, learned positions, and a deepstack.

The tower gives further maps of an image, from its middle layers, which are added to the hidden
states of the image's tokens after the decoder's first layers. Depends on names and numbers, and
imports torch only when an image is encoded. Invariant: `tower_shapes` equals the parameters of
`Qwen3VLVisionModel` for the same configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model_store.families.prompt import Image
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Pixels, VisionSizes
from model_store.networks.decoder import count, mapping
from model_store.networks.qwen_vl_images import MERGE, TEMPORAL, QwenVLImages

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = QwenVLImages(patch=16, mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5))
PREFIX = "model.visual."
_BICUBIC = 3

# transformers' defaults for fields that a configuration does not state
_VISION_DEFAULTS = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "in_channels": 3,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 3584,
    "num_position_embeddings": 2304,
}
_DEEPSTACK = (8, 16, 24)
"""Layers of the tower whose output has a merger of its own, where a configuration is silent."""
_GEOMETRY = {
    "patch_size": IMAGES.patch,
    "temporal_patch_size": TEMPORAL,
    "spatial_merge_size": MERGE,
    "in_channels": 3,
}
"""Fields of `vision_config` that decide patches, and their only supported values."""


class Qwen3VLVisionTower:
    """The tower of Qwen3-VL: 16-pixel patches, four of which become one token, full attention."""

    prefix = PREFIX
    patches_input, grids_input = "pixel_values", "image_grid_thw"
    processor: Mapping[str, Any] = {
        "patch_size": IMAGES.patch,
        "temporal_patch_size": TEMPORAL,
        "merge_size": MERGE,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        "image_mean": IMAGES.mean,
        "image_std": IMAGES.deviation,
    }
    preprocessor: Mapping[str, Any] = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor",
        "patch_size": IMAGES.patch,
        "temporal_patch_size": TEMPORAL,
        "merge_size": MERGE,
        # the defaults of these differ among libraries
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGES.mean,
        "image_std": IMAGES.deviation,
        "do_convert_rgb": True,
    }

    def sizes(self, config: Mapping[str, Any]) -> VisionSizes:
        vision = vision_config(config)
        counts = {name: count(vision, name, _VISION_DEFAULTS) for name in _VISION_DEFAULTS}
        patch = counts["patch_size"]
        return VisionSizes(
            layers=counts["depth"],
            full_layers=counts["depth"],
            window=0,
            width=counts["hidden_size"],
            inner=counts["intermediate_size"],
            patch=patch,
            patch_values=counts["in_channels"] * counts["temporal_patch_size"] * patch**2,
            merged=counts["spatial_merge_size"] ** 2,
            mlp_matrices=2,
            deepstack=len(deepstack(vision)),
        )

    def patches(self, rgb: Pixels) -> npt.NDArray[np.float32]:
        return IMAGES.patches(rgb)

    def grid(self, image: Image) -> tuple[int, int, int]:
        return IMAGES.grid(image)

    def embed(self, module: Any, patches: Tensor, grids: Tensor) -> Tensor:
        """A token's embedding, then its map for each of the first layers."""
        import torch

        output = module(patches.to(module.dtype), grid_thw=grids)
        return torch.cat([output.pooler_output, *output.deepstack_features], dim=-1)


def vision_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tower's fields of a `config.json`; raises `ValueError`."""
    return mapping(config.get("vision_config") or {}, "vision_config")


def out_width(vision: Mapping[str, Any]) -> int:
    """Width of an image token's embedding and of each of its maps."""
    return count(vision, "out_hidden_size", _VISION_DEFAULTS)


def refuse_other_patches(name: str, vision: Mapping[str, Any]) -> None:
    """Raise `CheckpointUnusable` for patches that are not cut as they are here."""
    for field, due in _GEOMETRY.items():
        if vision.get(field, due) != due:
            raise CheckpointUnusable(
                f"{name}: {field} of config.json is {vision[field]!r:.40}, and only {due} is"
                " computed."
            )


def deepstack(vision: Mapping[str, Any]) -> list[int]:
    """Layers of the tower that give maps; raises `ValueError` where they are none of its layers."""
    stated = vision.get("deepstack_visual_indexes", _DEEPSTACK)
    depth = count(vision, "depth", _VISION_DEFAULTS)
    layers = list(stated) if isinstance(stated, list | tuple) else [stated]
    known = [layer for layer in layers[: depth + 1] if layer in range(depth)]
    if len(set(known)) < len(layers):
        raise ValueError(
            f"deepstack_visual_indexes is {stated!r:.60}, not a list of different layers of the"
            f" {depth} that the vision tower has"
        )
    return layers


def tower_shapes(vision: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor of the tower; raises `ValueError`."""
    sizes = {name: count(vision, name, _VISION_DEFAULTS) for name in _VISION_DEFAULTS}
    width, inner, patch = sizes["hidden_size"], sizes["intermediate_size"], sizes["patch_size"]
    frames, merged = sizes["temporal_patch_size"], width * sizes["spatial_merge_size"] ** 2

    yield (
        f"{PREFIX}patch_embed.proj.weight",
        (width, sizes["in_channels"], frames, patch, patch),
    )
    yield f"{PREFIX}patch_embed.proj.bias", (width,)
    yield f"{PREFIX}pos_embed.weight", (sizes["num_position_embeddings"], width)

    yield from _merger_shapes(f"{PREFIX}merger.", width, merged, sizes["out_hidden_size"])
    for number in range(len(deepstack(vision))):
        prefix = f"{PREFIX}deepstack_merger_list.{number}."
        yield from _merger_shapes(prefix, merged, merged, sizes["out_hidden_size"])

    linear = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.linear_fc1": (inner, width),
        "mlp.linear_fc2": (width, inner),
    }
    for number in range(sizes["depth"]):
        block = f"{PREFIX}blocks.{number}."
        for norm in ("norm1", "norm2"):
            yield f"{block}{norm}.weight", (width,)
            yield f"{block}{norm}.bias", (width,)
        for name, (rows, columns) in linear.items():
            yield f"{block}{name}.weight", (rows, columns)
            yield f"{block}{name}.bias", (rows,)


def _merger_shapes(
    prefix: str, normed: int, merged: int, out: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a merger; the width that its norm is over differs among mergers."""
    yield f"{prefix}norm.weight", (normed,)
    yield f"{prefix}norm.bias", (normed,)
    yield f"{prefix}linear_fc1.weight", (merged, merged)
    yield f"{prefix}linear_fc1.bias", (merged,)
    yield f"{prefix}linear_fc2.weight", (out, merged)
    yield f"{prefix}linear_fc2.bias", (out,)
