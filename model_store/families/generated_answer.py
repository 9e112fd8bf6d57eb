"""The number that a model writes as its score, read from the tokens of its answer.

An answer is `<think>...</think><answer>7</answer>`, the form that ERank's authors ask for. Depends
on a tokenizer and a read-out, not on a network. Invariant: an answer is read token by token in the
same way for every engine, and its end depends on its own tokens alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.families.readout import GeneratedScore
from model_store.families.tokens import LiteralTokenizer

RULE = "answer 1"
"""Version of the rule by which a number is found. It decides scores, so it is part of the digest of
every model that writes its score."""
_THINK, _THOUGHT = "<think>", "</think>"
_OPEN, _CLOSE = "<answer>", "</answer>"
_INTEGER = re.compile(r"[ \t\r\n]*(0|[1-9][0-9]{0,8})[ \t\r\n]*")
_MAX_INSIDE = 64
"""Characters after `<answer>` without an end, beyond which no number is expected any more."""
_ENDS = ("<|im_end|>", "<|endoftext|>")
"""Control tokens that end a turn, as far as a tokenizer has them."""


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number, and its place in the text."""

    value: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The raw score of an answer, and the number of tokens that were written.

    `score` is None where the answer has no number within the bounds.
    """

    score: float | None
    tokens: int


def answered(text: str) -> bool:
    """True once more text can change nothing: the answer has ended, or has too much in it."""
    start = _opened(text)
    if start < 0:
        return False
    return _CLOSE in text[start:] or len(text) - start > _MAX_INSIDE


def number_in(text: str) -> Number | None:
    """The number between the first `<answer>` and `</answer>` after the thinking.

    Text that begins with `<think>` is thinking up to the first `</think>`. Anything but one whole
    number in decimal ASCII digits, without sign, point or leading zeros, is no number.
    """
    start = _opened(text)
    if start < 0:
        return None
    end = text.find(_CLOSE, start)
    found = _INTEGER.fullmatch(text, start, end) if end >= 0 else None
    return Number(int(found[1]), *found.span(1)) if found else None


def _opened(text: str) -> int:
    """The index after `<answer>`; -1 where it is not written yet."""
    after = 0
    if text.lstrip().startswith(_THINK):
        thought = text.find(_THOUGHT)
        if thought < 0:
            return -1
        after = thought + len(_THOUGHT)
    found = text.find(_OPEN, after)
    return -1 if found < 0 else found + len(_OPEN)


class AnswerReader:
    """Reads one answer as its tokens are written, at most `max_tokens` of them."""

    def __init__(
        self, tokenizer: LiteralTokenizer, readout: GeneratedScore, max_tokens: int
    ) -> None:
        self._tokenizer, self._readout, self._max_tokens = tokenizer, readout, max_tokens
        self._stops = stop_ids(tokenizer)
        self._text = ""
        self._ends: list[int] = []
        """The length of the text after each token."""
        self._logprobs: list[float] = []
        self.ended = False
        """True once no further token can change the score."""

    def add(self, token: int, logprob: float) -> None:
        """Add the next token with the logarithm of its probability; ignored after the end."""
        if self.ended:
            return
        self._text += self._tokenizer.decode([token])
        self._ends.append(len(self._text))
        self._logprobs.append(logprob)
        full = len(self._ends) >= self._max_tokens
        self.ended = full or token in self._stops or answered(self._text)

    @property
    def answer(self) -> Answer:
        """The result so far.

        A number's probability is the product over all tokens that have a character of it: "10" is
        one token in some vocabularies and two in others. (A choice: the authors state it for a
        number that is one token.)
        """
        number = number_in(self._text)
        written = len(self._ends)
        if number is None or not self._readout.lowest <= number.value <= self._readout.highest:
            return Answer(None, written)

        logprob, start = 0.0, 0
        for end, own in zip(self._ends, self._logprobs, strict=True):
            if start < number.end and end > number.start:
                logprob += own
            start = end
        return Answer(number.value * math.exp(logprob), written)


def stop_ids(tokenizer: LiteralTokenizer) -> Sequence[int]:
    """Ids of the control tokens that end an answer, whatever it has so far."""
    controls = tokenizer.controls
    return [controls[token] for token in _ENDS if token in controls]
