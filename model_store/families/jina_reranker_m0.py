"""jina-reranker-m0, a reranker of text and images on Qwen2-VL-2B.

The prompt begins with the document. Its last id, 100, is a byte that is no character by itself, so
it is appended as an id; the head of two layers reads the hidden state there. The authors' code
takes a text or an image on each side; both at once are an image and then a text, as in table 11 of
the paper. Invariant: for ordinary text the ids equal those of the authors' code.

Long pairs are cut otherwise than there: the authors cut a text document to 9,728 tokens and then
the whole prompt from its end, the query first. Here the document's text is cut as far as the whole
prompt needs, and the query after it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_store.families.family import SideRules
from model_store.families.prompt import Item, images_first
from model_store.families.readout import TwoLayerHead
from model_store.families.template import ImageTemplate, TemplateFamily
from model_store.manifest import PixelBounds

CELL = 28
SCORE_ID = 100
"""The id whose hidden state is read: the byte 0xA7, which only ends characters of UTF-8."""

# Sizes of Qwen2-VL-2B, on which both families of Qwen2-VL were trained.
QWEN2_VL_2B: dict[str, Any] = {
    "model_type": "qwen2_vl",
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 1536,
        "mlp_ratio": 4,
        "num_heads": 16,
    },
}


def image_template(min_pixels: int, max_pixels: int) -> ImageTemplate:
    """The images of Qwen2-VL, within bounds on their area."""
    return ImageTemplate(
        start="<|vision_start|>",
        placeholder="<|image_pad|>",
        end="<|vision_end|>",
        cell=CELL,
        pixels=PixelBounds(min_pixels=min_pixels, max_pixels=max_pixels),
    )


class JinaRerankerM0(TemplateFamily):
    """Reads a text, an image, or both, on either side of a pair; it has no instruction."""

    name = "jina-reranker-m0"
    architectures = ("JinaVLForRanking",)
    published_names = r"jina-reranker-m0"
    own_network = True
    # Encoded apart, which is exact: a piece ends between a line break and an asterisk.
    templates: ClassVar[dict[str, tuple[str, str]]] = {
        "official": ("**Document**:\n{document}\n", f"**Query**:\n{{query}}{{{SCORE_ID}}}")
    }
    readouts = (TwoLayerHead(),)
    default_instruction = ""
    default_max_tokens = 10_240
    default_transform = "sigmoid(x - 2.65)"
    image_template = image_template(3_136, 602_112)
    query_side = SideRules(max_images=1)
    document_side = SideRules(max_images=1)
    published: ClassVar[dict[str, dict[str, Any]]] = {
        "jina-reranker-m0": QWEN2_VL_2B
        | {"architectures": ["JinaVLForRanking"], "tie_word_embeddings": False}
    }

    @classmethod
    def arranged(cls, item: Item) -> Item:
        """The image before the text."""
        return images_first(item)
