"""A small Qwen3 with random weights, and Qwen3-Reranker as its authors' code scores a pair.

The scorer uses transformers alone: it encodes head, body and tail of the prompt apart, joins the
ids, and runs one forward pass over the whole vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from tests.conftest import TINY

THINK = ("<think>", "</think>")
HEAD = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and"
    ' the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def write_tokenizer(folder: Path) -> int:
    """gmr-tiny's tokenizer with the two tokens of a think block, which Qwen3 does not flag as
    special; returns the size of its vocabulary."""
    tokenizer = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    size = 1 + max(token["id"] for token in tokenizer["added_tokens"])
    for content in THINK:
        token = tokenizer["added_tokens"][-1] | {"id": size, "content": content, "special": False}
        tokenizer["added_tokens"].append(token)
        size += 1

    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings = (TINY / "tokenizer_config.json").read_text(encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    return size


def write_qwen3(folder: Path, *, seed: int = 0, tied: bool = True, **changes: object) -> Path:
    """Write a folder as a hub has Qwen3-Reranker, without a manifest; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder)
    settings = {
        "vocab_size": size,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "initializer_range": 0.1,
        "tie_word_embeddings": tied,
        "eos_token_id": None,
    }
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**(settings | changes)))
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


class AuthorsCode:
    """Qwen3-Reranker's scoring loop in fp32, one pair at a time."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._yes, self._no = self._tokenizer.convert_tokens_to_ids(["yes", "no"])

    def ids(self, instruction: str, query: str, document: str) -> list[int]:
        """The prompt's token ids."""
        body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        parts = [
            self._tokenizer.encode(part, add_special_tokens=False) for part in (HEAD, body, TAIL)
        ]
        return [*parts[0], *parts[1], *parts[2]]

    @torch.inference_mode()
    def logits(self, instruction: str, query: str, document: str) -> tuple[float, float]:
        """(logit(yes), logit(no)) of the next token."""
        ids = torch.tensor([self.ids(instruction, query, document)])
        logits = self._model(ids).logits[0, -1]
        return float(logits[self._yes]), float(logits[self._no])
