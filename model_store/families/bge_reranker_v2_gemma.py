"""bge-reranker-v2-gemma, a reranker of text on Gemma 2B.

Prompt and read-out are those of the authors' package FlagEmbedding 1.4.2: no turns, the task after
the pair, and the logit of "Yes" as the score. The package encodes the parts apart and joins the
ids. Invariant: for ordinary text the ids equal those of the package.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_store.families.readout import SingleLabel
from model_store.families.template import TemplateFamily

_TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query"
    " by providing a prediction of either 'Yes' or 'No'."
)
_TEMPLATE_TOKENS = 66
"""The task and its line break, twice: the package counts them once and adds them once more."""

# Gemma 2B's sizes, from memory.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "bge-reranker-v2-gemma": {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "vocab_size": 256_000,
        "hidden_size": 2048,
        "intermediate_size": 16_384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "tie_word_embeddings": True,
    },
}


class BgeRerankerV2Gemma(TemplateFamily):
    """Reads text on both sides of a pair, without an instruction."""

    name = "bge-reranker-v2-gemma"
    architectures = ("GemmaForCausalLM",)
    published_names = r"bge-reranker-v2-gemma"
    templates: ClassVar[dict[str, tuple[str, str]]] = {
        "official": ("<bos>A: {query}", "\n{|}B: {document}{|}\n{|}" + _TASK)
    }
    readouts = (SingleLabel("Yes"),)
    default_instruction = ""
    default_max_tokens = 8192
    """The positions of Gemma. The package's own limit, 512, is that of short passages."""
    max_question_tokens = 1 + (default_max_tokens - _TEMPLATE_TOKENS) * 3 // 4
    image_template = None
    published = _PUBLISHED
