"""zerank, a reranker of text on Qwen3 (zerank-1 and zerank-2: 4B, zerank-1-small: 1.7B).

The query is the system's turn and the document the user's, and the score is the logit of "Yes". The
form with an instruction has one source, the template that vLLM ships for zerank-2. Invariant: for
ordinary text the ids equal those of the chat template over the two turns.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_store.families.readout import SingleLabel
from model_store.families.template import TemplateFamily

_SYSTEM, _END = "<|im_start|>system\n", "<|im_end|>\n"

# Sizes are Qwen3's, from memory.
_NETWORK = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
_4B = _NETWORK | {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "zerank-1": _4B,
    "zerank-2": _4B,
    "zerank-1-small": _NETWORK
    | {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    },
}


class Zerank(TemplateFamily):
    """Reads text on both sides of a pair."""

    name = "zerank"
    architectures = ("Qwen3ForCausalLM",)
    published_names = r"(?<![a-z0-9])zerank(?![a-z])"
    templates: ClassVar[dict[str, tuple[str, str]]] = {
        "official": (
            f"{_SYSTEM}<query>{{query}}</query>\n<instruction>{{instruction}}</instruction>{_END}",
            f"<|im_start|>user\n{{document}}{_END}<|im_start|>assistant\n",
        )
    }
    without_instruction: ClassVar[dict[str, str]] = {"official": f"{_SYSTEM}{{query}}{_END}"}
    readouts = (SingleLabel("Yes"),)
    default_instruction = ""
    default_max_tokens = 8192
    default_transform = "sigmoid(x / 5)"
    image_template = None
    published = _PUBLISHED
