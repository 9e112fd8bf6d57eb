"""The language half that the adapters of Qwen-VL networks have in common: names of modules and
tokens, and positions on three axes.

Depends on names and an image's arithmetic, not on a configuration's sizes. Invariant: nothing here
differs between Qwen2-VL, Qwen2.5-VL and Qwen3-VL.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from model_store.families.prompt import Segment
from model_store.networks.architecture import Positions
from model_store.networks.qwen_vl_images import QwenVLImages

if TYPE_CHECKING:
    from torch import Tensor

LANGUAGE = "model.language_model."


class QwenVL(ABC):
    """An adapter's part that does not depend on the network's generation."""

    embeddings = f"{LANGUAGE}embed_tokens.weight"
    head = "lm_head.weight"
    language_prefix = LANGUAGE
    stated_tokens: Mapping[str, tuple[int, str]] = {
        "image_token_id": (151_655, "<|image_pad|>"),
        "vision_start_token_id": (151_652, "<|vision_start|>"),
        "vision_end_token_id": (151_653, "<|vision_end|>"),
    }
    images: ClassVar[QwenVLImages]

    @abstractmethod
    def is_tied(self, config: Mapping[str, Any]) -> bool:
        """True where the output head is the input embeddings."""

    def vllm_overrides(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's loader of classifiers reads `tie_word_embeddings` of the text's configuration.

        transformers since 5.4 reads that field at the top level alone, where checkpoints of 2025
        have it.
        """
        tied = self.is_tied(config)
        return {"tie_word_embeddings": tied, "text_config": {"tie_word_embeddings": tied}}

    def positions(
        self, segment: Segment, image_token_id: int | None, start: int = 0
    ) -> tuple[Positions, int]:
        """(time, row, column) of every token, `[3, tokens]`."""
        return self.images.positions(segment, image_token_id, start)

    def language_model(self, model: Any) -> Any:
        return model.model.language_model

    def vision_model(self, model: Any) -> Any:
        return model.model.visual

    def position_ids(self, positions: Tensor) -> Tensor:
        return positions

    def rotary(self, decoder: Any, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = decoder.rotary_emb(embeddings, positions)
        return cosines, sines
