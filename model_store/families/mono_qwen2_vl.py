"""MonoQwen2-VL, a reranker of page images on Qwen2-VL-2B.

The prompt is Qwen2-VL's chat template with its default system text, and begins with the document.
The authors' model card has one case: a text query and the image of a page. For every other pair the
request is the one of table 12 of the paper, which says "document" in the place of "image document",
on a line of its own. Invariant: for ordinary text the ids equal those of the chat template.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_store.families.family import SideRules
from model_store.families.jina_reranker_m0 import QWEN2_VL_2B, image_template
from model_store.families.prompt import Item, images_first
from model_store.families.readout import LabelPair
from model_store.families.template import TemplateFamily

_HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
_TAIL = "<|im_end|>\n<|im_start|>assistant\n"
_REQUEST = (
    "Assert the relevance of the previous {} to the following query, answer True or False. The"
    " query is:"
)


class MonoQwen2VL(TemplateFamily):
    """Reads a text, an image, or both, on either side of a pair; it has no instruction."""

    name = "mono-qwen2-vl"
    architectures = ("Qwen2VLForConditionalGeneration",)
    published_names = r"monoqwen2-?vl"
    # Encoded apart, which is exact: a piece ends between the colon and the blank.
    templates: ClassVar[dict[str, tuple[str, str]]] = {
        "official": (_HEAD + "{document}{wording}", " {query}" + _TAIL)
    }
    wordings: ClassVar[dict[str, str]] = {
        "page": _REQUEST.format("image document"),
        "other": "\n" + _REQUEST.format("document"),
    }
    readouts = (LabelPair("True", "False"),)
    default_instruction = ""
    default_max_tokens = 32_768
    """The context of Qwen2-VL-2B: an image alone may have 16,384 tokens."""
    image_template = image_template(3_136, 12_845_056)
    query_side = SideRules(max_images=1)
    document_side = SideRules(max_images=1)
    published: ClassVar[dict[str, dict[str, Any]]] = {
        "monoqwen2-vl-v0.1": QWEN2_VL_2B
        | {"architectures": ["Qwen2VLForConditionalGeneration"], "tie_word_embeddings": True}
    }

    @classmethod
    def arranged(cls, item: Item) -> Item:
        """The image before the text."""
        return images_first(item)

    @classmethod
    def wording(cls, query: Item, document: Item) -> str:
        """`page` for a text query and an image without a text."""
        asked_in_words = all(isinstance(part, str) for part in query)
        texts = [part for part in document if isinstance(part, str) and part]
        pictures = [part for part in document if not isinstance(part, str)]
        return "page" if asked_in_words and pictures and not texts else "other"
