"""gmr-tiny's tokenizer: byte-level BPE with Qwen's pre-tokenizer and control tokens, learnt from
texts that ship with CPython.

Depends on texts and on the fixed text of prompts. Invariant: any string can be encoded, since the
tokenizer is byte-level; the control tokens come after the merges, as in Qwen.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from random import Random

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from model_store.families.gmr import DEFAULT_INSTRUCTION, TEMPLATES
from model_store.synthetic import cells
from model_store.synthetic.texts import character_names, passages, words

VOCABULARY = 16384
"""Tokens, control tokens included."""

_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen2.5's added tokens in their order; the second list is not flagged special there either.
_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_ADDED = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's chat template, without the default system message and the video branch."""


def train_tokenizer() -> Tokenizer:
    """Learn the merges; the same CPython gives the same file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(_SPECIAL) - len(_ADDED),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(fixed_corpus(), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in _SPECIAL]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _ADDED])
    return tokenizer


_SPELLINGS = ("code", "spaced")
"""Templates whose words are in the vocabulary; every other one has the same words."""


def fixed_corpus() -> Iterator[str]:
    """Texts that ship with CPython, names of characters, captions, and the texts of prompts."""
    yield from passages("train")
    for word in words():  # as a query's first word, as a later word, as a sentence's first word
        yield f"{word}\n{word} {word}\n{word.capitalize()}"
    yield from character_names()
    yield from _captions()

    fixed = ["yes\nno\n"]
    for form in chain.from_iterable(TEMPLATES[name] for name in _SPELLINGS):
        fixed.append(form.replace("{", "").replace("}", ""))
    yield from [*fixed, DEFAULT_INSTRUCTION, *cells.INSTRUCTIONS.values()] * 100


def _captions() -> Iterator[str]:
    """Texts of generated examples."""
    rng = Random("captions")
    for _ in range(200):
        for cell in ("I-T", "IT-T", "T-T"):
            example = cells.sample(cell, rng, "train", 3)
            for part in chain(example.query, *example.documents):
                if isinstance(part, str):
                    yield part
