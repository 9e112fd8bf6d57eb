"""The common part of the vision towers of Qwen2-VL and Qwen2.5-VL: patches of 14 pixels, of which
four become one token.

Depends on names and numbers, not on torch. Invariant: a tower's own module adds its layers alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model_store.families.prompt import Image
from model_store.networks import qwen2_5_vl_images as images
from model_store.networks.architecture import Pixels, VisionSizes
from model_store.networks.decoder import mapping

if TYPE_CHECKING:
    from torch import Tensor

VISION = "model.visual."
_BICUBIC = 3
_ARITHMETIC = {
    "image_mean": images.MEAN.tolist(),
    "image_std": images.DEVIATION.tolist(),
}
_PATCHES = {
    "patch_size": images.PATCH,
    "temporal_patch_size": images.TEMPORAL,
    "merge_size": images.MERGE,
}


def preprocessor_of(processor: str) -> Mapping[str, Any]:
    """A `preprocessor_config.json` without pixel bounds, for a processor by its class."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor,
        **_PATCHES,
        # the defaults of these differ among libraries
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        **_ARITHMETIC,
        "do_convert_rgb": True,
    }


class QwenVisionTower(ABC):
    """A tower of either kind. A subclass has its layers."""

    prefix = VISION
    patches_input, grids_input = "pixel_values", "image_grid_thw"
    processor: Mapping[str, Any] = {
        **_PATCHES,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        **_ARITHMETIC,
    }
    preprocessor: Mapping[str, Any]
    fixed: Mapping[str, Any] = {
        "patch_size": images.PATCH,
        "temporal_patch_size": images.TEMPORAL,
        "spatial_merge_size": images.MERGE,
        "in_channels": 3,
        "in_chans": 3,
    }
    """Fields of `vision_config` that have one supported value."""

    @abstractmethod
    def sizes(self, config: Mapping[str, Any]) -> VisionSizes:
        """Counts of the tower that a `config.json` describes; raises `ValueError`."""

    @abstractmethod
    def tensor_shapes(self, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, shape) of every tensor of the tower; raises `ValueError`."""

    def patches(self, rgb: Pixels) -> npt.NDArray[np.float32]:
        return images.patches(rgb)

    def grid(self, image: Image) -> tuple[int, int, int]:
        return images.grid(image)

    def embed(self, module: Any, patches: Tensor, grids: Tensor) -> Tensor:
        tokens: Tensor = module(patches.to(module.dtype), grid_thw=grids).pooler_output
        return tokens


def vision_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tower's fields; raises `ValueError` where they are no object."""
    return mapping(config.get("vision_config") or {}, "vision_config")


def tower_shapes(
    sizes: Mapping[str, int], width: int, out: int, matrices: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor of a tower but its norms.

    `sizes` has the fields that both kinds have, `width` is that of a patch and `out` that of a
    token. `matrices` are those of each block, (rows, columns) by name; all have biases.
    """
    patch, frames = sizes["patch_size"], sizes["temporal_patch_size"]
    merged = width * sizes["spatial_merge_size"] ** 2
    yield f"{VISION}patch_embed.proj.weight", (width, sizes["in_channels"], frames, patch, patch)

    linear = {"merger.mlp.0": (merged, merged), "merger.mlp.2": (out, merged)}
    for number in range(sizes["depth"]):
        for name, shape in matrices.items():
            linear[f"blocks.{number}.{name}"] = shape
    for name, (rows, columns) in linear.items():
        yield f"{VISION}{name}.weight", (rows, columns)
        yield f"{VISION}{name}.bias", (rows,)


def tower_norms(depth: int) -> Iterator[str]:
    """Names of a tower's norms, all as wide as a patch."""
    yield f"{VISION}merger.ln_q"
    for number in range(depth):
        yield f"{VISION}blocks.{number}.norm1"
        yield f"{VISION}blocks.{number}.norm2"
