"""GMR, the paper's general multimodal reranker on Qwen2.5-VL.

The template is that of the released lychee-rerank-mm (paper, section 3.1 and figure 6). Its
published code writes it without the line breaks and spaces that the Qwen3-VL report prints; both
spellings are kept, and a checkpoint names its own. Invariant: for ordinary text the ids equal what
the checkpoint's own chat template and processor give.
"""

from __future__ import annotations

from typing import Any

from model_store.families.readout import LabelPair, SingleLabel
from model_store.families.template import ImageTemplate, TemplateFamily
from model_store.manifest import PixelBounds

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".'
)
_HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
_TAIL = "<|im_end|>\n<|im_start|>assistant\n"

# The two halves of a pair are encoded apart: the pre-tokenizer always ends a piece between the line
# break and "<Document" or "<Instruct". The third template is not the paper's: keys and values of a
# document that comes first do not depend on the query.
TEMPLATES: dict[str, tuple[str, str]] = {
    "code": (_HEAD + "<Instruct>: {instruction}<Query>:{query}\n", "<Document>:{document}" + _TAIL),
    "spaced": (
        _HEAD + "<Instruct>: {instruction}\n<Query>: {query}\n",
        "<Document>: {document}" + _TAIL,
    ),
    "document-first": (
        _HEAD + "<Document>:{document}\n",
        "<Instruct>: {instruction}<Query>:{query}" + _TAIL,
    ),
}
DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
LABELS = ("yes", "no")

CELL = 28
"""Pixels of an image token's side: 14-pixel patches, merged 2 x 2."""
MIN_PIXELS = 4 * CELL * CELL
MAX_PIXELS = 1280 * CELL * CELL
MAX_TOKENS = 3200
"""The paper's maximum input length (section 5.1)."""

# Sizes of Qwen2.5-VL-3B and -7B, on which the paper's two models were trained (table 4).
_NETWORK = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}
_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "gmr-3b": _NETWORK
    | {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "vision_config": _TOWER | {"out_hidden_size": 2048},
    },
    "gmr-7b": _NETWORK
    | {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "vision_config": _TOWER | {"out_hidden_size": 3584},
    },
}


class Gmr(TemplateFamily):
    """Reads text, images, or both, on either side of a pair."""

    name = "gmr"
    architectures = ("Qwen2_5_VLForConditionalGeneration",)
    published_names = r"^gmr-|lychee-rerank"
    assumed = True
    templates = TEMPLATES
    readouts = (LabelPair(*LABELS), SingleLabel(LABELS[0]))  # paper, equations 1 and 2
    default_instruction = DEFAULT_INSTRUCTION
    default_max_tokens = MAX_TOKENS
    image_template = ImageTemplate(
        start="<|vision_start|>",
        placeholder="<|image_pad|>",
        end="<|vision_end|>",
        cell=CELL,
        pixels=PixelBounds(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS),
    )
    published = _PUBLISHED
