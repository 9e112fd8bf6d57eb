"""gmr-mini's tokenizer: learnt from real texts; the words of generated pictures and questions have
the tokens that they have in gmr-tiny's.

Depends on texts and on gmr-tiny's tokenizer, not on packages. Invariant: no assigned character has
more than three tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from model_store.recipes.mini.texts.meanings import WORD
from model_store.recipes.tiny.tokenizer import fixed_corpus
from model_store.synthetic.cells import NUMBER_WORDS
from model_store.synthetic.drawing import COLOURS, FIGURES, SHAPES
from model_store.synthetic.facts import ASPECT_WORDS
from model_store.synthetic.pages import HEADLINES
from model_store.synthetic.scenes import plural

VOCABULARY = 16384
"""Tokens, control tokens included."""

_MOST_WORDS = 20_000
_OFTEN = 12  # occurrences from which a word is learnt in all its forms
_FIRST = 0xF0000  # the first of the private characters, each of which stands for a token
_SURPLUS = 2000  # merges that are learnt beyond those that there is room for

Merge = tuple[str, str]


def learn_vocabulary(
    texts: Iterable[str], shipped: Tokenizer, vocabulary: int = VOCABULARY
) -> Tokenizer:
    """Learn the merges from texts, behind those that spell words of generated cells as `shipped`
    does; the same texts give the same file."""
    content: dict[str, Any] = json.loads(shipped.to_str())
    spelt = _spelt(shipped)
    kept = _merges_of(content["model"]["merges"], spelt)
    controls = shipped.get_added_tokens_decoder().values()
    pairs = _pairs()
    room = vocabulary - len(controls) - len(pairs)

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    start = _with_merges(content, alphabet, kept)
    learnt = _learn(start, _corpus(list(texts)), room + _SURPLUS)
    apart = {pair for tokens in spelt for pair in pairwise(tokens)}
    merges = _room_for(room, alphabet, kept, learnt, apart)
    tokenizer = _with_merges(content, alphabet, [*merges, *pairs])
    _add_controls(tokenizer, controls)
    return tokenizer


def cell_words() -> list[str]:
    """The words that gmr-tiny's vision tower names, and those that its questions ask with."""
    shapes = [*SHAPES, *map(plural, SHAPES)]
    figures = [word for figure in FIGURES for word in figure.split()]
    return sorted({*HEADLINES, *COLOURS, *shapes, *figures, *NUMBER_WORDS, *chain(*ASPECT_WORDS)})


def _spelt(tokenizer: Tokenizer) -> list[list[str]]:
    """The tokens of each form of a cell's word."""
    forms: list[str] = []
    for word in cell_words():
        forms += [word, f" {word}", word.capitalize(), f" {word.capitalize()}"]
    encodings = tokenizer.encode_batch(forms, add_special_tokens=False)
    return [list(encoding.tokens) for encoding in encodings]


def _merges_of(merges: Sequence[Sequence[str]], spelt: Sequence[Sequence[str]]) -> list[Merge]:
    """The merges, in order, that tokens are made by."""
    made = {first + second: (first, second) for first, second in merges}
    needed: set[str] = set()
    open_tokens = [token for tokens in spelt for token in tokens]
    while open_tokens:
        token = open_tokens.pop()
        if token in made and token not in needed:
            needed.add(token)
            open_tokens += made[token]
    return [(first, second) for first, second in merges if first + second in needed]


def _learn(start: Tokenizer, corpus: Iterable[str], vocabulary: int) -> list[Merge]:
    """Merges of the tokens of `start`, in the order in which they are learnt."""
    numbers = start.get_vocab()
    tokens = sorted(numbers, key=numbers.__getitem__)
    standing = [chr(_FIRST + number) for number in range(len(tokens))]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, initial_alphabet=standing, show_progress=False
    )
    learner.train_from_iterator(_stand_ins(start, corpus), trainer)

    def text(characters: str) -> str:
        return "".join(tokens[ord(character) - _FIRST] for character in characters)

    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(text(first), text(second)) for first, second in merges]


def _stand_ins(start: Tokenizer, corpus: Iterable[str]) -> Iterator[str]:
    """Texts whose pieces are apart, and whose tokens are a character each."""
    for encoding in start.encode_batch(list(corpus), add_special_tokens=False):
        pieces: list[str] = []
        before: int | None = None
        for number, piece in zip(encoding.ids, encoding.word_ids, strict=True):
            if piece != before:
                pieces.append("")
            pieces[-1] += chr(_FIRST + number)
            before = piece
        yield " ".join(pieces)


def _room_for(
    room: int, alphabet: Sequence[str], kept: list[Merge], learnt: list[Merge], apart: set[Merge]
) -> list[Merge]:
    """As many merges as there is room for, without those that join what has to stay apart."""
    tokens = {*alphabet, *(first + second for first, second in kept)}
    merges = list(kept)
    for first, second in learnt:
        if (first, second) in apart or first not in tokens or second not in tokens:
            continue
        if first + second not in tokens:
            if len(tokens) == room:
                break
            tokens.add(first + second)
        merges.append((first, second))
    return merges


def _with_merges(
    content: dict[str, Any], alphabet: Sequence[str], merges: Sequence[Merge]
) -> Tokenizer:
    """A tokenizer of the alphabet and the merges' results, and no control tokens."""
    names = dict.fromkeys([*alphabet, *(first + second for first, second in merges)])
    numbers = {name: number for number, name in enumerate(names)}
    model = content["model"] | {"vocab": numbers, "merges": [list(merge) for merge in merges]}
    return Tokenizer.from_str(json.dumps(content | {"added_tokens": [], "model": model}))


def _add_controls(tokenizer: Tokenizer, controls: Iterable[AddedToken]) -> None:
    for control in controls:
        if control.special:
            tokenizer.add_special_tokens([control])
        else:
            tokenizer.add_tokens([control])


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


def _pairs() -> list[Merge]:
    """The first two bytes of every assigned character of four bytes."""
    points = [*range(0x10000, 0x40000, 0x1000), 0xE0000]
    letters = dict.fromkeys(_letters(chr(point))[:2] for point in points)
    return [(pair[0], pair[1]) for pair in letters]


def _letters(character: str) -> str:
    """A character's bytes in the byte-level alphabet."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return level.pre_tokenize_str(character)[0][0]
