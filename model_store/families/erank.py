"""ERank (4B, 14B and 32B), a reranker of text on Qwen3 that thinks and then writes its score.

The prompt is that of the authors' code (`examples/utils.py` beside the published weights; figure 5
of arXiv 2509.00520 has the same words) as the only message of Qwen3's chat template. The score is
the number that the model writes times the number's probability. Invariant: for ordinary text the
ids equal those of the tokenizer's chat template around the authors' prompt.

The authors leave these open, and they are choices here: the instruction of calls that name none;
the limit of a pair's tokens (they name 32 K for prompt and answer together, and trained on prompts
of 1,024); the bound on an answer (`generation_config.json` of the 4B model has 2,048, their vLLM
example 4,096); and the probability of "10", which Qwen's vocabulary writes as two tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.families.readout import GeneratedScore
from model_store.families.template import TemplateFamily

# a user's text ends before a line feed, after which the pre-tokenizer always begins a new piece
_QUESTION = (
    "<|im_start|>user\nGiven a query and a document, please give a relevance score of 0~10.\n"
    "The goal or relevance definition is: {instruction}\n\n"
    "Here is the query:\n{query}\n\n"
)
_DOCUMENT = (
    "Here is the document:\n{document}\n\n"
    "After thinking, directly choose a relevance score from [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].\n"
    "- 0 represents completely not related\n"
    "- 10 means perfectly related.\n\n"
    "Desired output format:\n"
    "<think>put your thinking here</think><answer>Only allows an integer here</answer>\n\n"
    "Your output:<|im_end|>\n<|im_start|>assistant\n"
)

# Sizes are Qwen3's, from memory.
_NETWORK = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "erank-4b": _NETWORK
    | {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "erank-14b": _NETWORK
    | {
        "hidden_size": 5120,
        "intermediate_size": 17_408,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "tie_word_embeddings": False,
    },
}


class ERank(TemplateFamily):
    """Reads text on both sides of a pair, and writes its score as text."""

    name = "erank"
    architectures = ("Qwen3ForCausalLM",)
    published_names = r"(?<![a-z0-9])erank(?![a-z])"
    templates: ClassVar[dict[str, tuple[str, str]]] = {"official": (_QUESTION, _DOCUMENT)}
    readouts = (GeneratedScore(lowest=0, highest=10, max_tokens=2048),)
    default_instruction = DEFAULT_INSTRUCTION
    default_max_tokens = 8192
    default_transform = "x / 10"
    image_template = None
    published = _PUBLISHED
