"""Words, scripts and copies of texts.

Does not depend on rows. Invariant: what is computed of a text depends on that text alone, and takes
time in proportion to its first `READ` characters.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from model_store.training.data.identity import normalize_text

READ = 20_000
"""Characters of a text that are looked at."""
MAX_TRIPLES = 20_000_000
"""Triples of all texts among which near copies are looked for, 4 bytes each."""
NEAR = 0.8
"""Share of common word triples from which two texts are near copies."""
_TRIPLE = 3
_SCRIPT_SAMPLE = 400
_ASCII_LETTER = re.compile("[A-Za-z]")

_STARTS = (
    (0x0041, "Latin"),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0900, "Devanagari"),
    (0x0980, "other"),
    (0x0E00, "Thai"),
    (0x0E80, "other"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "other"),
    (0x1D00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, "other"),
    (0x3040, "Kana"),
    (0x3100, "Han"),
    (0x3130, "Hangul"),
    (0x3190, "Han"),
    (0xA000, "other"),
    (0xAC00, "Hangul"),
    (0xD800, "other"),
    (0xF900, "Han"),
    (0xFB00, "Latin"),
    (0xFB50, "Arabic"),
    (0xFE00, "other"),
    (0x20000, "Han"),
    (0x323B0, "other"),
)
"""First code points of ranges whose letters are of one script, near enough to tell languages that
do not share one."""
_CODES = [start for start, _ in _STARTS]
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Characters of scripts that do not separate words by spaces."""
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~\u2000-\u206f\u3000-\u303f]+")
"""A run without spaces and punctuation; `\\w` would end at the vowel signs of Indic scripts."""


def word_count(text: str) -> int:
    """Words of a text; of a script without spaces between words, its characters."""
    text = text[:READ]
    unspaced = len(_UNSPACED.findall(text))
    return unspaced + len(_WORD.findall(_UNSPACED.sub(" ", text)))


def script_of(text: str) -> str | None:
    """The script of most letters of a text's beginning; None where it has no letter."""
    begin = text[:_SCRIPT_SAMPLE]
    if begin.isascii():
        return "Latin" if _ASCII_LETTER.search(begin) else None

    counts: dict[str, int] = {}
    for character in begin:
        if character.isalpha():
            script = _script(character)
            counts[script] = counts.get(script, 0) + 1
    if not counts:
        return None

    if "Kana" in counts:  # Japanese mixes both
        counts["Kana"] += counts.pop("Han", 0)
    return max(counts, key=lambda script: counts[script])


@lru_cache(4096)
def _script(character: str) -> str:
    position = bisect_right(_CODES, ord(character)) - 1
    return _STARTS[position][1] if position >= 0 else "other"


def triples(text: str) -> frozenset[int]:
    """Hashes of each three words in a row, which near copies have in common; empty for a text of
    fewer words."""
    words = normalize_text(text[:READ]).split()
    if len(words) == 1 and word_count(text) > _TRIPLE:
        words = list(words[0])  # a script without spaces
    ends = range(_TRIPLE, len(words) + 1)
    return frozenset(
        zlib.crc32(" ".join(words[end - _TRIPLE : end]).encode("utf-8", "replace")) for end in ends
    )


def likeness(ours: frozenset[int], theirs: frozenset[int]) -> float:
    """The share of two texts' triples that they have in common (Jaccard); 0 for short texts."""
    if not ours or not theirs:
        return 0.0
    common = len(ours & theirs)
    return common / (len(ours) + len(theirs) - common)


class NearCopies:
    """Texts among which near copies are found without comparing all of them.

    Minima of 16 hash functions over a text's triples, in four bands of four (Broder, 1997): of
    texts that have nine tenths in common, 98 % meet in a band; those that meet are compared.
    """

    def __init__(self, most: int = MAX_TRIPLES) -> None:
        """`most` bounds the triples of all texts that are kept."""
        self._texts: list[tuple[str, npt.NDArray[np.uint32]]] = []
        self._left = most
        self._bands: dict[tuple[int, bytes], list[int]] = {}

    def add(self, text: str, label: str) -> bool:
        """Keep a text that has three words or more, under a label; returns whether there was
        room."""
        parts = triples(text)
        if len(parts) > self._left:
            return False
        if not parts:
            return True
        self._left -= len(parts)
        for band in _bands(parts):
            self._bands.setdefault(band, []).append(len(self._texts))
        self._texts.append((label, np.fromiter(parts, np.uint32, len(parts))))
        return True

    def find(self, text: str) -> tuple[str, float] | None:
        """The label of the text that is most like this one, and how much, from `NEAR` on."""
        parts = triples(text)
        if not parts:
            return None
        best: tuple[str, float] | None = None
        for number in self._met(parts):
            label, theirs = self._texts[number]
            like = likeness(parts, frozenset(theirs.tolist()))
            if like >= NEAR and (best is None or like > best[1]):
                best = (label, like)
        return best

    def _met(self, parts: frozenset[int]) -> Iterable[int]:
        """Numbers of the texts that share a band, a bounded number of each band's."""
        numbers: set[int] = set()
        for band in _bands(parts):
            numbers.update(self._bands.get(band, ())[:_MOST_IN_BAND])
        return sorted(numbers)


_MOST_IN_BAND = 64
_FACTORS = (np.random.default_rng(19).integers(2**31, 2**63, 16, dtype=np.uint64) * 2) + 1


def _bands(parts: frozenset[int]) -> Iterator[tuple[int, bytes]]:
    hashes = np.fromiter(parts, np.uint64, len(parts))
    least: npt.NDArray[np.uint64] = (_FACTORS[:, None] * hashes[None, :] >> np.uint64(24)).min(1)
    for number in range(4):
        yield number, least[4 * number : 4 * number + 4].tobytes()


_DAMAGED = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|[\u0080-\u009f]")
_MARKUP = re.compile(
    r"</?(?:a|b|br|div|em|h[1-6]|i|img|li|p|script|span|strong|style|table|td|tr|ul)\b[^<>]{0,200}>"
    r"|&(?:amp|lt|gt|quot|nbsp|#\d{1,6}|#x[0-9a-f]{1,6});",
    re.IGNORECASE,
)
_HIDDEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


def damage(text: str) -> str | None:
    """The first trace of a wrong decoding, such as U+FFFD or `Ã¼`; None where there is none."""
    match = _DAMAGED.search(text, 0, READ)
    return match[0] if match else None


def markup(text: str) -> str | None:
    """The first HTML tag or entity; None where there is none."""
    match = _MARKUP.search(text, 0, READ)
    return match[0] if match else None


def hidden(text: str) -> str | None:
    """The name of the first character that is not seen, or that turns the direction of writing."""
    match = _HIDDEN.search(text, 0, READ)
    return unicodedata.name(match[0], f"U+{ord(match[0]):04X}") if match else None
