"""Meanings of a vocabulary's tokens: vectors of a sentence encoder, and weights by frequency.

Depends on a tokenizer, texts and an encoder's vectors of single words, not on a network. Invariant:
a token that is part of words only has the mean of theirs, and one of neither has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Matrix = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], npt.NDArray[np.floating]]

SMOOTHING = 1e-3
"""Of weights a / (a + p) for a token of probability p (Arora et al., 2017)."""
LEAST = -10.0
"""The log weight of control tokens and spaces, which mean nothing."""
_MARKS = -2.5  # the largest log weight of a token without a letter
_MOSTWORDS = 45_000
WORD = re.compile(r"[A-Za-z]+")
"""A word of a text."""
_TOKEN = re.compile(r" ?[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Meanings:
    """`vectors` are `[vocabulary, width]`, zero without a meaning; `log_weights`
    `[vocabulary]`."""

    vectors: Matrix
    log_weights: Matrix


def token_meanings(
    tokenizer: Tokenizer, texts: Iterable[str], encode: Encode, *, width: int
) -> Meanings:
    """Meanings of all tokens in `width` dimensions: the encoder's vectors of words by themselves,
    centred, reduced to their principal components, and each component's spread halved in
    logarithm."""
    texts = list(texts)
    words = _common_words(texts)
    pieces = _pieces(tokenizer)
    own = {piece.strip().lower() for piece in pieces if _TOKEN.fullmatch(piece)}
    marks = {piece for piece in pieces if _is_mark(piece)}
    asked = sorted(own | set(words) | marks)
    vectors = dict(zip(asked, np.asarray(encode(asked), np.float32), strict=True))

    shared, shares = _of_parts(tokenizer, words, vectors)
    found = np.zeros((len(pieces), len(next(iter(vectors.values())))), np.float32)
    for token, piece in enumerate(pieces):
        text = piece.strip().lower() if _TOKEN.fullmatch(piece) else piece
        part = shared[token] / shares[token] if shares[token] else None
        whole = vectors.get(text)
        if whole is not None and (part is None or words.get(text, 0) >= 3):
            found[token] = whole if part is None else 0.7 * whole + 0.3 * part
        elif part is not None:
            found[token] = part

    return Meanings(_reduced(found, width), _log_weights(tokenizer, texts, pieces))


def _pieces(tokenizer: Tokenizer) -> list[str]:
    """The text of each token; empty for control tokens, which are no text."""
    added = tokenizer.get_added_tokens_decoder()
    pieces: list[str] = []
    for token in range(tokenizer.get_vocab_size()):
        text = "" if token in added else tokenizer.decode([token], skip_special_tokens=False)
        pieces.append(text)
    return pieces


def _common_words(texts: Sequence[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word.lower() for word in WORD.findall(text))
    return {word: count for word, count in counts.most_common(_MOSTWORDS) if count >= 2}


def _is_mark(piece: str) -> bool:
    """Whether a token is a number, a punctuation mark or a text of another script."""
    return bool(piece.strip()) and not _TOKEN.fullmatch(piece) and "\ufffd" not in piece


def _of_parts(
    tokenizer: Tokenizer, words: dict[str, int], vectors: dict[str, Matrix]
) -> tuple[Matrix, Matrix]:
    """Of each token the weighted sum of the words that it is a part of, and the weights' sum."""
    size = tokenizer.get_vocab_size()
    sums = np.zeros((size, len(next(iter(vectors.values())))), np.float32)
    weights = np.zeros(size, np.float32)
    for form, share in ((" {}", 1.0), ("{}", 0.3)):
        spelt = [form.format(word) for word in words]
        encodings = tokenizer.encode_batch(spelt, add_special_tokens=False)
        for (word, count), encoding in zip(words.items(), encodings, strict=True):
            if len(encoding.ids) == 1:
                continue
            weight = share * float(np.log1p(count))
            for token in encoding.ids:
                sums[token] += weight * vectors[word]
                weights[token] += weight
    return sums, weights


def _reduced(vectors: Matrix, width: int) -> Matrix:
    """Unit vectors of the first principal components; rows of zeros stay."""
    known = np.abs(vectors).sum(1) > 0
    centred = vectors[known] - vectors[known].mean(0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:width]
    reduced = _unit(centred @ components.T)
    reduced = _unit(reduced / np.sqrt(np.sqrt((reduced**2).mean(0)) + 1e-9))
    found = np.zeros((len(vectors), reduced.shape[1]), np.float32)
    found[known] = reduced
    return found


def _unit(rows: Matrix) -> Matrix:
    unit: Matrix = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)
    return unit


def _log_weights(tokenizer: Tokenizer, texts: Sequence[str], pieces: Sequence[str]) -> Matrix:
    """Logarithms of the weights by frequency, bounded for what has no letter."""
    counts = np.ones(len(pieces))
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        np.add.at(counts, encoding.ids, 1)
    weights: Matrix = np.log(SMOOTHING / (SMOOTHING + counts / counts.sum())).astype(np.float32)
    for token, piece in enumerate(pieces):
        if not piece.strip():
            weights[token] = LEAST
        elif not _TOKEN.fullmatch(piece):
            weights[token] = min(float(weights[token]), _MARKS)
    return weights
