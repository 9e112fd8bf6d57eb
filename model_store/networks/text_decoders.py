"""Decoders of text alone, of the Llama kind: Qwen2, Qwen3, Gemma and Llama.

Depends on names and numbers, and imports transformers only when a network is loaded. Invariant:
`tensor_shapes` equals the parameters of transformers' class for the same configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model_store.families.prompt import Segment
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Positions, Shapes, VisionTower
from model_store.networks.decoder import DecoderSizes, decoder_shapes

if TYPE_CHECKING:
    from torch import Tensor

_ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotary embedding whose angles depend on the length of the whole text."""


@dataclass(eq=False)
class TextDecoder:
    """The adapter of one causal language model of transformers."""

    name: str
    model_type: str
    defaults: Mapping[str, int]
    """transformers' defaults for counts that a configuration does not state. A count of 0 follows
    from the others: as many key heads as heads, heads that share the width."""
    biases: bool = False
    """True where query, key and value have biases."""
    head_norms: bool = False
    """True where each head of query and key has an RMS norm."""
    tied: bool = False
    """True where the output head is the embeddings unless a configuration says otherwise."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Switches of `config.json` that must be off, and the consequence of each that is on."""
    embeddings: str = "model.embed_tokens.weight"
    head: str = "lm_head.weight"
    language_prefix: str = "model."
    vision: VisionTower | None = None
    stated_tokens: Mapping[str, tuple[int, str]] = field(default_factory=dict)

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

        for switch, consequence in self.refused.items():
            if config.get(switch):
                raise CheckpointUnusable(f"{name}: config.json has {switch}, {consequence}.")

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
        return bool(config.get("tie_word_embeddings", self.tied))

    def decoder_sizes(self, config: Mapping[str, Any]) -> DecoderSizes:
        return DecoderSizes.of_config(config, self.defaults)

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        tensors = decoder_shapes(
            config,
            self.language_prefix,
            self.defaults,
            biases=self.biases,
            head_norms=self.head_norms,
        )
        shapes = dict(tensors)
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
        import transformers

        return getattr(transformers, self.name)

    def language_model(self, model: Any) -> Any:
        return model.model

    def vision_model(self, model: Any) -> Any:
        return None

    def position_ids(self, positions: Tensor) -> Tensor:
        return positions[0]

    def rotary(self, decoder: Any, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = decoder.rotary_emb(embeddings, positions[0])
        return cosines, sines


_UNLIKE = "which vLLM does not read alike"
_WIDE = {
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
QWEN2 = TextDecoder(
    name="Qwen2ForCausalLM",
    model_type="qwen2",
    defaults=_WIDE | {"vocab_size": 151_936, "head_dim": 0},
    biases=True,
)
QWEN3 = TextDecoder(
    name="Qwen3ForCausalLM",
    model_type="qwen3",
    defaults=_WIDE | {"vocab_size": 151_936, "head_dim": 128},
    head_norms=True,
    refused={"attention_bias": _UNLIKE},
)
# Embeddings scaled by the root of the width, and norms that multiply by 1 + weight, are in the
# modules that transformers makes.
GEMMA = TextDecoder(
    name="GemmaForCausalLM",
    model_type="gemma",
    defaults={
        "vocab_size": 256_000,
        "hidden_size": 3072,
        "intermediate_size": 24_576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
    },
    tied=True,
    refused={
        "attention_bias": _UNLIKE,
        "use_bidirectional_attention": "and its decoder is run with a causal mask",
    },
)
LLAMA = TextDecoder(
    name="LlamaForCausalLM",
    model_type="llama",
    defaults=_WIDE
    | {
        "vocab_size": 32_000,
        "intermediate_size": 11_008,
        "num_key_value_heads": 0,
        "head_dim": 0,
    },
    refused={"attention_bias": _UNLIKE, "mlp_bias": _UNLIKE},
)
TEXT_DECODERS = (QWEN2, QWEN3, GEMMA, LLAMA)
