"""Llama without its causal mask, pooled over all tokens: the network of llama-nemotron-rerank.

The published folder names code of its own for it, which is never executed: the same layers are
those of transformers' Llama with `is_causal` off. Depends on numbers of a `config.json`. Invariant:
scores equal those of the authors' code, which are the head's output for the mean of the last hidden
states, divided by the temperature that `config.json` states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Shapes, VisionTower
from model_store.networks.decoder import MAX_COUNT, decoder_shapes
from model_store.networks.score_heads import refuse_other_labels
from model_store.networks.text_decoders import LLAMA

if TYPE_CHECKING:
    from torch import Tensor


class BidirectionalLlama:
    """The adapter of `LlamaBidirectionalForSequenceClassification`."""

    name = "LlamaBidirectionalForSequenceClassification"
    model_type = "llama_bidirec"
    embeddings = LLAMA.embeddings
    head = ""
    vision: VisionTower | None = None
    stated_tokens: Mapping[str, tuple[int, str]] = {}

    def refuse_other_arithmetic(
        self, name: str, config: Mapping[str, Any], max_tokens: int
    ) -> None:
        """One label, the mean over all tokens, and a temperature that is a number."""
        refuse_other_labels(name, config)
        LLAMA.refuse_other_arithmetic(name, config, max_tokens)
        pooling = config.get("pooling", "avg")
        if pooling != "avg":
            raise CheckpointUnusable(
                f"{name}: config.json has the pooling {pooling!r:.40}, and only 'avg' is computed"
                " here."
            )

        temperature = config.get("temperature", 1.0)
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not number or not math.isfinite(temperature) or temperature <= 0:
            raise CheckpointUnusable(
                f"{name}: config.json has the temperature {temperature!r:.40}, which is no positive"
                " number."
            )

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        return False

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        tensors = decoder_shapes(
            config, LLAMA.language_prefix, LLAMA.defaults, biases=False, head_norms=False
        )
        return dict(tensors) | {"score.weight": (1, LLAMA.decoder_sizes(config).width)}

    def current_name(self, tensor: str) -> str:
        return tensor

    def vllm_overrides(self, config: Mapping[str, Any]) -> dict[str, Any]:
        raise CheckpointUnusable(
            f"vLLM needs code of the folder's own for {self.name}, which is never executed: set"
            " RERANK_ENGINE=torch for this checkpoint."
        )

    def model_class(self) -> Any:
        from transformers import LlamaForSequenceClassification

        return LlamaForSequenceClassification

    def token_types(self, config: Mapping[str, Any]) -> int:
        return 0

    def positions(self, config: Mapping[str, Any]) -> int:
        positions = config.get("max_position_embeddings", 0)
        return min(positions, MAX_COUNT) if isinstance(positions, int) else 0

    def prepare(self, model: Any, config: Mapping[str, Any]) -> None:
        """Take the causal mask away, from the mask's choice and from the kernels'; transformers'
        configuration drops a temperature."""
        model.score_temperature = config.get("temperature", 1.0)
        model.config.is_causal = False
        for layer in model.model.layers:
            layer.self_attn.is_causal = False

    def scores(self, model: Any, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """The head's output for the mean of the tokens' last hidden states, in fp32."""
        hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        weights = mask[..., None].float()
        mean = (hidden.float() * weights).sum(1) / weights.sum(1)
        scores: Tensor = model.score(mean)[:, 0] / model.score_temperature
        return scores


BIDIRECTIONAL_LLAMA = BidirectionalLlama()
