"""Qwen3-Reranker, a reranker of text on Qwen3 (0.6B, 4B and 8B).

Its authors' code encodes head, body and tail apart and joins the ids; the pre-tokenizer ends a
piece at both joints, so the whole template read at once gives the same ids. The empty think block
is part of the prompt: without it the scores are others. Invariant: for ordinary text the ids equal
those of the authors' code.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_store.families.gmr import DEFAULT_INSTRUCTION, LABELS, SYSTEM
from model_store.families.readout import LabelPair, SingleLabel
from model_store.families.template import TemplateFamily

_HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
_TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

_NETWORK = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_669,  # from memory; Qwen3's own checkpoints have 151,936
    "num_key_value_heads": 8,
    "head_dim": 128,
}
# Layers and widths are those of the authors' report; widths inside the MLP are Qwen3's.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen3-reranker-0.6b": _NETWORK
    | {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "qwen3-reranker-4b": _NETWORK
    | {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "qwen3-reranker-8b": _NETWORK
    | {
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
}


class Qwen3Reranker(TemplateFamily):
    """Reads text on both sides of a pair."""

    name = "qwen3-reranker"
    architectures = ("Qwen3ForCausalLM", "Qwen3ForSequenceClassification")
    published_names = r"qwen3-reranker"
    assumed = True
    templates: ClassVar[dict[str, tuple[str, str]]] = {
        "official": (
            _HEAD + "<Instruct>: {instruction}\n<Query>: {query}\n",
            "<Document>: {document}" + _TAIL,
        )
    }
    readouts = (LabelPair(*LABELS), SingleLabel(LABELS[0]))
    default_instruction = DEFAULT_INSTRUCTION
    default_max_tokens = 8192
    image_template = None
    published = _PUBLISHED
