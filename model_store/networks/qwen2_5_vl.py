"""Qwen2.5-VL: a decoder with three-dimensional positions, and a vision tower.

Depends on names and numbers, and imports transformers only when a network is loaded. Invariant:
`tensor_shapes` equals the parameters of `Qwen2_5_VLForConditionalGeneration` for the same
configuration, in both layouts of `config.json` that hubs have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Shapes, VisionSizes
from model_store.networks.decoder import DecoderSizes, count, decoder_shapes, mapping
from model_store.networks.qwen2_5_vl_images import IMAGES
from model_store.networks.qwen_vision_tower import (
    VISION,
    QwenVisionTower,
    preprocessor_of,
    tower_norms,
    tower_shapes,
    vision_config,
)
from model_store.networks.qwen_vl import LANGUAGE, QwenVL

# transformers' defaults for fields that a configuration does not state
_TEXT_DEFAULTS = {
    "vocab_size": 152_064,
    "hidden_size": 8192,
    "intermediate_size": 29_568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
_VISION_DEFAULTS = {
    "depth": 32,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "in_channels": 3,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 3584,
}
_WINDOW_DEFAULTS = {"window_size": 112}
_FULL_ATTENTION = (7, 15, 23, 31)
"""Layers of the tower with attention over the whole image, where a configuration is silent."""


class Qwen25VisionTower(QwenVisionTower):
    """RMS norms, gated MLPs, and attention within windows in most layers."""

    preprocessor = preprocessor_of("Qwen2_5_VLProcessor")

    def sizes(self, config: Mapping[str, Any]) -> VisionSizes:
        """`window_size` is the side of a window in pixels."""
        vision = vision_config(config)
        counts = {name: count(vision, name, _VISION_DEFAULTS) for name in _VISION_DEFAULTS}
        full_attention = vision.get("fullatt_block_indexes", _FULL_ATTENTION)
        if not isinstance(full_attention, list | tuple):
            raise ValueError("fullatt_block_indexes is no list")

        patch = counts["patch_size"]
        return VisionSizes(
            layers=counts["depth"],
            full_layers=len(full_attention),
            window=(count(vision, "window_size", _WINDOW_DEFAULTS) // patch) ** 2,
            width=counts["hidden_size"],
            inner=counts["intermediate_size"],
            patch=patch,
            patch_values=counts["in_channels"] * counts["temporal_patch_size"] * patch**2,
            merged=counts["spatial_merge_size"] ** 2,
        )

    def tensor_shapes(self, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, shape) of every tensor of the tower."""
        vision = vision_config(config)
        sizes = {name: count(vision, name, _VISION_DEFAULTS) for name in _VISION_DEFAULTS}
        width, inner = sizes["hidden_size"], sizes["intermediate_size"]
        matrices = {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        yield from tower_shapes(sizes, width, sizes["out_hidden_size"], matrices)
        for norm in tower_norms(sizes["depth"]):
            yield f"{norm}.weight", (width,)


class Qwen25VL(QwenVL):
    """The adapter of `Qwen2_5_VLForConditionalGeneration`."""

    name = "Qwen2_5_VLForConditionalGeneration"
    model_type = "qwen2_5_vl"
    images = IMAGES
    vision: QwenVisionTower = Qwen25VisionTower()

    def refuse_other_arithmetic(
        self, name: str, config: Mapping[str, Any], max_tokens: int
    ) -> None:
        """Patches are cut here in one way, and the decoder over shared prefixes sees all tokens."""
        text, vision = config.get("text_config") or config, config.get("vision_config") or {}
        if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
            raise CheckpointUnusable(
                f"{name}: text_config and vision_config of config.json must be objects."
            )

        for field, due in self.vision.fixed.items():
            if vision.get(field, due) != due:
                raise CheckpointUnusable(
                    f"{name}: {field} of config.json is {vision[field]!r:.40}, and only {due} is"
                    " computed."
                )

        window = text.get("sliding_window")
        if text.get("use_sliding_window") and isinstance(window, int) and window < max_tokens:
            raise CheckpointUnusable(
                f"{name}: config.json has a sliding window of {window} tokens, less than the"
                f" {max_tokens} of a pair."
            )

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        """transformers 5 takes the word of either level."""
        text = config.get("text_config")
        nested = isinstance(text, Mapping) and text.get("tie_word_embeddings")
        return bool(config.get("tie_word_embeddings") or nested)

    def decoder_sizes(self, config: Mapping[str, Any]) -> DecoderSizes:
        return DecoderSizes.of_config(_text_config(config), _TEXT_DEFAULTS)

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        """Takes a flat configuration as of 2025 or a nested one."""
        text = _text_config(config)
        shapes = dict(decoder_shapes(text, LANGUAGE, _TEXT_DEFAULTS, biases=True, head_norms=False))
        shapes |= dict(self.vision.tensor_shapes(config))
        if not self.is_tied(config):
            shapes[self.head] = shapes[self.embeddings]
        return shapes

    def current_name(self, tensor: str) -> str:
        """Before transformers 4.52 the language model was `model.` and the tower `visual.`."""
        if tensor.startswith("visual."):
            return f"model.{tensor}"
        if tensor.startswith("model.") and not tensor.startswith((LANGUAGE, VISION)):
            return LANGUAGE + tensor.removeprefix("model.")
        return tensor

    def oldest_name(self, module: str) -> str:
        if module.startswith(LANGUAGE):
            return f"model.{module.removeprefix(LANGUAGE)}"
        return module.removeprefix("model.") if module.startswith(VISION) else module

    def model_class(self) -> Any:
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration


QWEN2_5_VL = Qwen25VL()


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The decoder's fields: nested under `text_config`, or flat as of 2025."""
    text = config.get("text_config")
    return config if text is None else mapping(text, "text_config")
