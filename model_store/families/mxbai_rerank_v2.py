"""mxbai-rerank-v2, a reranker of text on Qwen2.5 (base: 0.5B, large: 1.5B).

Prompt, read-out and limits are those of the authors' package mxbai-rerank 0.1.6, which encodes the
parts of the prompt apart and joins the ids: a question mark at the end of a query and the line
break after it are two tokens. Invariant: for ordinary text the ids equal those of the package.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from model_store.families.readout import LabelPair
from model_store.families.recognition import Description, FolderFacts
from model_store.families.template import TemplateFamily

_HEAD = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\n{|}"
)
_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For"
    " each query-document pair, carefully analyze the semantic relationship between them, then"
    " provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
_TAIL = "<|im_end|>\n<|im_start|>assistant\n"

_TEMPLATE_TOKENS = 79
"""The fixed texts but `query: ` and `document: `, which the package does not count."""
_HEAD_TOKENS = 24
_PAIR_TOKENS = 8192
_QUERY_TOKENS = _PAIR_TOKENS * 3 // 4

_BASE, _LARGE = "sigmoid(x - 4.5)", "sigmoid(x - 6)"
_BASE_WIDTH = 896
# Sizes are Qwen2.5's, from memory.
_NETWORK = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "mxbai-rerank-base-v2": _NETWORK
    | {
        "hidden_size": _BASE_WIDTH,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "mxbai-rerank-large-v2": _NETWORK
    | {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
}


class MxbaiRerankV2(TemplateFamily):
    """Reads text on both sides of a pair."""

    name = "mxbai-rerank-v2"
    architectures = ("Qwen2ForCausalLM", "Qwen2ForSequenceClassification")
    published_names = r"mxbai-rerank-(base|large)-v2"
    templates: ClassVar[dict[str, tuple[str, str]]] = {
        "official": (
            _HEAD + "instruction: {instruction}\nquery: {query}",
            "\n{|}document: {document}{|}\n{|}" + _TASK + _TAIL,
        )
    }
    without_instruction: ClassVar[dict[str, str]] = {"official": _HEAD + "query: {query}"}
    readouts = (LabelPair("1", "0"),)
    default_instruction = ""
    default_max_tokens = _PAIR_TOKENS + _TEMPLATE_TOKENS
    max_question_tokens = _HEAD_TOKENS + _QUERY_TOKENS
    default_transform = _LARGE
    image_template = None
    published = _PUBLISHED

    @classmethod
    def describe(cls, facts: FolderFacts) -> Description:
        """The family's defaults, with the transform of the model's size.

        The package subtracts half of the largest score that it expects: 9 of the base model, 12 of
        the large one and of any other.
        """
        is_base = facts.config.get("hidden_size") == _BASE_WIDTH
        described = super().describe(facts)
        return replace(described, transform=_BASE if is_base else _LARGE)
