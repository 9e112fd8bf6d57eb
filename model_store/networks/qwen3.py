"""Qwen3: a decoder of text, with RMS norms over each head of query and key.

Depends on names and numbers, and imports transformers only when a network is loaded. Invariant:
`tensor_shapes` equals the parameters of `Qwen3ForCausalLM` for the same configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from model_store.families.prompt import Segment
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Positions, Shapes, VisionTower
from model_store.networks.decoder import DecoderSizes, decoder_shapes

if TYPE_CHECKING:
    from torch import Tensor

# transformers' defaults for fields that a configuration does not state
_DEFAULTS = {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
}
_ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotary embedding whose angles depend on the length of the whole text."""


class Qwen3:
    """The adapter of `Qwen3ForCausalLM`."""

    name = "Qwen3ForCausalLM"
    model_type = "qwen3"
    embeddings = "model.embed_tokens.weight"
    head = "lm_head.weight"
    language_prefix = "model."
    vision: VisionTower | None = None
    stated_tokens: Mapping[str, tuple[int, str]] = {}

    def refuse_other_arithmetic(
        self, name: str, config: Mapping[str, Any], max_tokens: int
    ) -> None:
        """The decoder over shared prefixes sees all tokens, at positions of one axis."""
        window = config.get("sliding_window")
        if config.get("use_sliding_window") and isinstance(window, int) and window < max_tokens:
            raise CheckpointUnusable(
                f"{name}: config.json has a sliding window of {window} tokens, less than the"
                f" {max_tokens} of a pair."
            )

        if config.get("attention_bias"):
            raise CheckpointUnusable(
                f"{name}: config.json has attention_bias, which vLLM does not read alike."
            )

        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(rope, Mapping):
            raise CheckpointUnusable(f"{name}: rope_parameters of config.json is no object.")
        kind = rope.get("rope_type", rope.get("type"))
        if kind in _ROPE_BY_LENGTH:
            raise CheckpointUnusable(
                f"{name}: config.json has rotary embeddings of the kind {kind}, with which a score"
                " would depend on the length of other texts."
            )

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        return bool(config.get("tie_word_embeddings"))

    def decoder_sizes(self, config: Mapping[str, Any]) -> DecoderSizes:
        return DecoderSizes.of_config(config, _DEFAULTS)

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        shapes = dict(decoder_shapes(config, "model.", _DEFAULTS, biases=False, head_norms=True))
        if not self.is_tied(config):
            shapes[self.head] = shapes[self.embeddings]
        return shapes

    def current_name(self, tensor: str) -> str:
        return tensor

    def oldest_name(self, module: str) -> str:
        return module

    def vllm_overrides(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"tie_word_embeddings": self.is_tied(config)}

    def positions(
        self, segment: Segment, image_token_id: int | None, start: int = 0
    ) -> tuple[Positions, int]:
        """Each token's index, `[1, tokens]`."""
        end = start + len(segment.ids)
        return np.arange(start, end)[None], end

    def model_class(self) -> Any:
        from transformers import Qwen3ForCausalLM

        return Qwen3ForCausalLM

    def language_model(self, model: Any) -> Any:
        return model.model

    def vision_model(self, model: Any) -> Any:
        return None

    def position_ids(self, positions: Tensor) -> Tensor:
        return positions[0]

    def rotary(self, decoder: Any, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = decoder.rotary_emb(embeddings, positions[0])
        return cosines, sines


QWEN3 = Qwen3()
