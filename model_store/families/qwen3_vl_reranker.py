"""Qwen3-VL-Reranker, a reranker of texts and images on Qwen3-VL (2B and 8B).

Its prompt is GMR's, in the spelling of the published code. A side has all its images before all its
texts, and a side without any content is the word NULL. The network alone does not make a folder one
of this family: most folders with it are chat or embedding models, which would be given scores that
mean nothing, so that such a folder is served where RERANK_MODEL_FAMILY names the family.

The authors' two programs read images of different sizes: that of the model's folder 1,310,720
pixels, that of their repository 1,843,200. The first is the default, and a folder's processor may
state up to the second; the manifest names the bound. Invariant: for ordinary content the ids equal
those of the authors' code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from model_store.families.gmr import LABELS, TEMPLATES
from model_store.families.prompt import Item
from model_store.families.readout import LabelPair
from model_store.families.recognition import Description, FolderFacts
from model_store.families.sentence_transformers.modules import SETTINGS, CrossEncoderFiles
from model_store.families.template import ImageTemplate, TemplateFamily
from model_store.json_files import read_json
from model_store.manifest import PixelBounds

DEFAULT_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
EMPTY_SIDE = "NULL"

CELL = 32
"""Pixels of an image token's side: 16-pixel patches, merged 2 x 2."""
MIN_PIXELS = 4 * CELL**2
MAX_PIXELS = 1280 * CELL**2
MOST_PIXELS = 1800 * CELL**2
MAX_TOKENS = 10_240

_NETWORK = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
}
_TEXT = {
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    # from memory; it decides no size
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5_000_000,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
# The towers' widths inside the MLP and their heads are from memory: Qwen3-VL-2B's and -8B's.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen3-vl-reranker-2b": _NETWORK
    | {
        "tie_word_embeddings": True,
        "text_config": _TEXT
        | {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    },
    "qwen3-vl-reranker-8b": _NETWORK
    | {
        "tie_word_embeddings": False,
        "text_config": _TEXT
        | {
            "hidden_size": 4096,
            "intermediate_size": 12_288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
        },
        "vision_config": {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
    },
}


class Qwen3VLReranker(TemplateFamily):
    """Reads text, images, or both, on either side of a pair."""

    name = "qwen3-vl-reranker"
    architectures = ("Qwen3VLForConditionalGeneration",)
    published_names = r"qwen3-vl-reranker"
    templates: ClassVar[dict[str, tuple[str, str]]] = {"official": TEMPLATES["code"]}
    readouts = (LabelPair(*LABELS),)
    default_instruction = DEFAULT_INSTRUCTION
    default_max_tokens = MAX_TOKENS
    image_template = ImageTemplate(
        start="<|vision_start|>",
        placeholder="<|image_pad|>",
        end="<|vision_end|>",
        cell=CELL,
        pixels=PixelBounds(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS),
        most_pixels=MOST_PIXELS,
    )
    published = _PUBLISHED

    @classmethod
    def describe(cls, facts: FolderFacts) -> Description:
        """The family's defaults, with the folder's own prompt as instruction where it states one.

        The authors' code has one instruction by default, and the files that they wrote for
        sentence-transformers have another.
        """
        described = super().describe(facts)
        settings = read_json(facts.name, facts.folder, SETTINGS) or {}
        prompt = CrossEncoderFiles(facts.name, facts.folder, (), settings).default_prompt
        if not prompt:
            return described
        return replace(
            described, default_instruction=prompt, stated=frozenset({"default_instruction"})
        )

    @classmethod
    def arranged(cls, item: Item) -> Item:
        """Images before texts, each in the order of the request; NULL for no content."""
        images = [part for part in item if not isinstance(part, str)]
        texts = [part for part in item if isinstance(part, str) and part]
        return (*images, *texts) or (EMPTY_SIDE,)
