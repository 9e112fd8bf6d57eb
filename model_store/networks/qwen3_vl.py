"""Qwen3-VL: a decoder with three-dimensional positions, and a vision tower with a deepstack.

Depends on names and numbers, and imports transformers only when a network is loaded. Invariant:
`tensor_shapes` equals the parameters of `Qwen3VLForConditionalGeneration` for the same
configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Shapes
from model_store.networks.decoder import DecoderSizes, decoder_shapes, mapping
from model_store.networks.qwen3_vl_vision import (
    IMAGES,
    Qwen3VLVisionTower,
    deepstack,
    out_width,
    refuse_other_patches,
    tower_shapes,
    vision_config,
)
from model_store.networks.qwen_vl import LANGUAGE, QwenVL

# transformers' defaults for fields that a configuration does not state
_TEXT_DEFAULTS = {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
}


class Qwen3VL(QwenVL):
    """The adapter of `Qwen3VLForConditionalGeneration`."""

    name = "Qwen3VLForConditionalGeneration"
    model_type = "qwen3_vl"
    images = IMAGES
    vision = Qwen3VLVisionTower()

    def refuse_other_arithmetic(
        self, name: str, config: Mapping[str, Any], max_tokens: int
    ) -> None:
        """Patches are cut here in one way, and positions are interleaved as transformers does."""
        try:
            text, vision = _text_config(config), vision_config(config)
            deepstack(vision)
        except ValueError as error:
            raise CheckpointUnusable(f"{name}: {error} in config.json.") from None

        refuse_other_patches(name, vision)
        if text.get("attention_bias"):
            raise CheckpointUnusable(
                f"{name}: config.json has attention_bias, which vLLM does not read alike."
            )
        _refuse_other_positions(name, text)

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        """transformers takes the word of the top level alone."""
        return bool(config.get("tie_word_embeddings"))

    def decoder_sizes(self, config: Mapping[str, Any]) -> DecoderSizes:
        return DecoderSizes.of_config(_text_config(config), _TEXT_DEFAULTS)

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        text, vision = _text_config(config), vision_config(config)
        shapes = dict(decoder_shapes(text, LANGUAGE, _TEXT_DEFAULTS, biases=False, head_norms=True))
        shapes |= dict(tower_shapes(vision))

        width, out = shapes[self.embeddings][1], out_width(vision)
        if out != width:
            raise ValueError(f"out_hidden_size is {out}, and hidden_size of the text {width}")
        if not self.is_tied(config):
            shapes[self.head] = shapes[self.embeddings]
        return shapes

    def current_name(self, tensor: str) -> str:
        """The architecture is younger than the names that transformers has had since 4.52."""
        return tensor

    def oldest_name(self, module: str) -> str:
        return module

    def model_class(self) -> Any:
        from transformers import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration


QWEN3_VL = Qwen3VL()


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(config.get("text_config") or {}, "text_config")


def _refuse_other_positions(name: str, text: Mapping[str, Any]) -> None:
    """Raise `CheckpointUnusable` for rotary embeddings that transformers and vLLM read apart.

    transformers always interleaves the three axes, and vLLM where `mrope_interleaved` says so.
    """
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise CheckpointUnusable(f"{name}: rope_parameters of config.json is no object.")

    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CheckpointUnusable(
            f"{name}: config.json has rotary embeddings of the kind {kind!r:.40}, and only default"
            " ones are computed."
        )
    for field in ("mrope_section", "mrope_interleaved"):
        if not rope.get(field):
            raise CheckpointUnusable(
                f"{name}: rope_parameters of config.json do not state {field}, without which vLLM"
                " would compute other positions."
            )
