"""jina-reranker-m0's network: Qwen2-VL with a head of two layers in the place of the output head.

Depends on names and numbers, and imports transformers only when a network is loaded. The class that
its authors publish beside the weights is never executed. Invariant: the weights are read by
transformers' own Qwen2-VL, under the names that the authors' files have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from model_store.networks.architecture import Shapes
from model_store.networks.qwen2_vl import Qwen2VL

_NAMES_BEFORE_4_52 = {
    r"^visual": "model.visual",
    r"^model(?!\.(language_model|visual))": "model.language_model",
}
"""Renames tensors as transformers does for its own classes."""


class JinaVL(Qwen2VL):
    """The adapter of `JinaVLForRanking`."""

    name = "JinaVLForRanking"

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        """True, whatever a file says: nothing reads the output head, and files may lack it."""
        return True

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        width = self.decoder_sizes(config).width
        return super().tensor_shapes(config) | {
            "score.0.weight": (width, width),
            "score.0.bias": (width,),
            "score.2.weight": (1, width),
            "score.2.bias": (1,),
        }

    def model_class(self) -> Any:
        return _model_class()


JINA_VL = JinaVL()


@cache
def _model_class() -> Any:
    from torch import nn
    from transformers import Qwen2VLModel, Qwen2VLPreTrainedModel

    class JinaVLForRanking(Qwen2VLPreTrainedModel):  # type: ignore[misc]
        """Qwen2-VL without an output head, and the two layers of the score."""

        _keys_to_ignore_on_load_unexpected = (r"^lm_head\.",)

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            width = config.text_config.hidden_size
            self.model = Qwen2VLModel(config)
            self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
            self.post_init()

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            return super().from_pretrained(*args, key_mapping=_NAMES_BEFORE_4_52, **kwargs)

    return JinaVLForRanking
