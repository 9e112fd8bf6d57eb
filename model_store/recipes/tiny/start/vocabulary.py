"""The next gmr-tiny's tokenizer: learnt from real texts, with every common word as one token.

Depends on texts, not on packages. Invariant: no assigned character has more than three tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer, pre_tokenizers

from model_store.recipes.tiny.start.meanings import WORD
from model_store.recipes.tiny.tokenizer import fixed_corpus, train_tokenizer

VOCABULARY = 28672
"""Tokens, control tokens included."""

_MOST_WORDS = 20_000
_OFTEN = 12  # occurrences from which a word is learnt in all its forms


def learn_vocabulary(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Learn the merges from texts; the same texts give the same file."""
    return train_tokenizer(_corpus(list(texts)), vocabulary, _pairs())


def _corpus(texts: Sequence[str]) -> Iterator[str]:
    """The texts, their words in the forms that a text may have, and the texts of prompts."""
    counts: Counter[str] = Counter()
    for text in texts:
        yield text
        counts.update(word.lower() for word in WORD.findall(text))

    for word, count in sorted(counts.most_common(_MOST_WORDS)):
        forms = [f" {word}"] * 12
        if count >= _OFTEN:
            forms += [word] * 4 + [word.capitalize()] * 3
        if count >= 3:
            yield "\n".join(forms)
    yield from fixed_corpus()


def _pairs() -> list[str]:
    """The first two bytes of every assigned character of four bytes."""
    points = [*range(0x10000, 0x40000, 0x1000), 0xE0000]
    return [_letters(chr(point))[:2] for point in points]


def _letters(character: str) -> str:
    """A character's bytes in the byte-level alphabet."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return level.pre_tokenize_str(character)[0][0]
