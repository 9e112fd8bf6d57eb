"""Qwen2-VL: the decoder and the positions of Qwen2.5-VL under a vision tower of its own.

Depends on names and numbers, and imports transformers only when a network is loaded. Invariant:
`tensor_shapes` equals the parameters of `Qwen2VLForConditionalGeneration` for the same
configuration, in both layouts of `config.json` that hubs have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from model_store.networks.architecture import VisionSizes
from model_store.networks.decoder import count
from model_store.networks.qwen2_5_vl import Qwen25VL
from model_store.networks.qwen_vision_tower import (
    QwenVisionTower,
    preprocessor_of,
    tower_norms,
    tower_shapes,
    vision_config,
)

# transformers' defaults for fields that a configuration does not state
_VISION_DEFAULTS = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "mlp_ratio": 4,
    "in_channels": 3,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}


class Qwen2VisionTower(QwenVisionTower):
    """Layer norms, MLPs of two matrices, and attention over the whole image in every layer.

    `embed_dim` is the width of a patch, and `hidden_size` that of a token.
    """

    preprocessor = preprocessor_of("Qwen2VLProcessor")
    fixed: Mapping[str, Any] = {
        **QwenVisionTower.fixed,
        "hidden_act": "quick_gelu",  # vLLM has no other
    }

    def sizes(self, config: Mapping[str, Any]) -> VisionSizes:
        counts = _counts(config)
        patch = counts["patch_size"]
        return VisionSizes(
            layers=counts["depth"],
            full_layers=counts["depth"],
            window=0,
            width=counts["embed_dim"],
            inner=counts["embed_dim"] * counts["mlp_ratio"],
            patch=patch,
            patch_values=counts["in_channels"] * counts["temporal_patch_size"] * patch**2,
            merged=counts["spatial_merge_size"] ** 2,
            mlp_matrices=2,
        )

    def tensor_shapes(self, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, shape) of every tensor of the tower."""
        counts = _counts(config)
        width, inner = counts["embed_dim"], counts["embed_dim"] * counts["mlp_ratio"]
        matrices = {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (inner, width),
            "mlp.fc2": (width, inner),
        }
        yield from tower_shapes(counts, width, counts["hidden_size"], matrices)
        for norm in tower_norms(counts["depth"]):
            yield f"{norm}.weight", (width,)
            yield f"{norm}.bias", (width,)


class Qwen2VL(Qwen25VL):
    """The adapter of `Qwen2VLForConditionalGeneration`."""

    name = "Qwen2VLForConditionalGeneration"
    model_type = "qwen2_vl"
    vision: QwenVisionTower = Qwen2VisionTower()

    def model_class(self) -> Any:
        from transformers import Qwen2VLForConditionalGeneration

        return Qwen2VLForConditionalGeneration


QWEN2_VL = Qwen2VL()


def _counts(config: Mapping[str, Any]) -> dict[str, int]:
    vision = vision_config(config)
    return {name: count(vision, name, _VISION_DEFAULTS) for name in _VISION_DEFAULTS}
