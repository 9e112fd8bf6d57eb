"""Byte-level vocabularies of several sizes, learnt from generated texts, with Qwen's rules."""

from __future__ import annotations

import json
import pydoc_data.topics
from functools import cache
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from tests.conftest import TINY

NAMES = ("gmr-tiny", "bytes alone", "few merges", "many scripts", "GPT-2's rule", "no rule")
_ALPHABETS = {
    "Chinese": range(0x4E00, 0x4F40),
    "Japanese": range(0x3041, 0x3097),
    "Korean": range(0xAC00, 0xAD40),
    "Thai": range(0x0E01, 0x0E3A),
    "Devanagari": range(0x0905, 0x094D),
    "Arabic": range(0x0621, 0x064B),
    "Russian": range(0x0430, 0x0450),
}


@cache
def vocabulary(name: str) -> LiteralTokenizer:
    """The literal tokenizer of one of `NAMES`."""
    return LiteralTokenizer(serialized(name))


@cache
def serialized(name: str) -> str:
    """The `tokenizer.json` of one of `NAMES`."""
    if name == "gmr-tiny":
        return (TINY / TOKENIZER_FILE).read_text(encoding="utf-8")
    sizes = {
        "bytes alone": 256,
        "few merges": 500,
        "many scripts": 6_000,
        "GPT-2's rule": 2_000,
        "no rule": 1_500,
    }
    rules = {"GPT-2's rule": "gpt2", "no rule": "none"}
    return _learn(sizes[name], rules.get(name, "qwen"))


def prose(script: str, characters: int, seed: int = 0) -> str:
    """A text of a script: words drawn from a closed list, the first of which are most frequent."""
    rng = Random(f"{script}/{seed}")
    letters = [chr(code) for code in _ALPHABETS[script]]
    words = ["".join(rng.choices(letters, k=rng.randint(1, 4))) for _ in range(300)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    joined = "".join(
        word + rng.choice(("", "", " ", "\uff0c", "\u3002\n"))
        for word in rng.choices(words, weights, k=characters)
    )
    return joined[:characters]


def english(characters: int, seed: int = 0) -> str:
    """Paragraphs of Python's own documentation."""
    paragraphs = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split(
        "\n\n"
    )
    Random(seed).shuffle(paragraphs)
    return "\n\n".join(paragraphs)[:characters]


def _learn(size: int, rule: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    if rule == "qwen":
        spec = json.loads((TINY / TOKENIZER_FILE).read_text(encoding="utf-8"))
        pattern = Regex(spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])
        steps = [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=rule == "gpt2"
        )

    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=16,
    )
    lines = english(60_000).splitlines(keepends=True)
    for script in _ALPHABETS:
        lines += prose(script, 12_000).splitlines(keepends=True)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer.to_str()
