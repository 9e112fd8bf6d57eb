"""llama-nemotron-rerank-1b-v2, a reranker of text on a bidirectional Llama 3.2.

Its authors' code writes a pair as one text, which the tokenizer begins with its first token. Both
sides are read at once, so that pairs share nothing. Invariant: for ordinary text the ids equal
those of the authors' code.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_store.families.family import CacheableSide
from model_store.families.readout import ScoreHead
from model_store.families.template import TemplateFamily


class NemotronRerank(TemplateFamily):
    """Reads text on both sides of a pair; it has no instruction."""

    name = "nemotron-rerank"
    architectures = ("LlamaBidirectionalForSequenceClassification",)
    published_names = r"nemotron-rerank-1b|nv-rerankqa"
    own_network = True
    # Encoded apart, which is exact: a piece ends between a line break and a space before a word.
    templates: ClassVar[dict[str, tuple[str, str]]] = {
        "official": ("<|begin_of_text|>question:{query} \n \n", " passage:{document}")
    }
    readouts = (ScoreHead(),)
    default_instruction = ""
    default_max_tokens = 8192
    default_transform = "identity"
    image_template = None
    published: ClassVar[dict[str, dict[str, Any]]] = {}

    @property
    def cacheable_side(self) -> CacheableSide:
        """Neither: every token of a pair attends to all others."""
        return "none"
