"""Passages of dictionaries: WordNet's senses with their definitions, and entries of dictd files.

Depends on the files' formats. Invariant: one passage is one sense or one entry, and its questions
are its words.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from model_store.recipes.mini.sources.passages import SHORTEST, Passage, one_line, shortened

_WORDNET = "usr/share/wordnet/data.*"
_BRACES = re.compile(r"[{}]")
_NOTE = re.compile(r"\[[^]]*\]|\([0-9-]{8,}\)")


def read_wordnet(source: str, root: Path) -> Iterator[Passage]:
    """Senses as "word, synonym: definition; examples"."""
    for path in sorted(root.glob(_WORDNET)):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                yield sense(source, line)


def sense(source: str, line: str) -> Passage:
    """The passage of one line of a data file; its document is its first word."""
    left, _, gloss = line.partition("|")
    fields = left.split()
    count = int(fields[3], 16)
    words = [fields[4 + 2 * number].split("(")[0].replace("_", " ") for number in range(count)]
    definition = one_line(gloss)
    text = shortened(f"{', '.join(words[:4])}: {definition}")
    meaning = definition.split(";")[0]
    return Passage(source, words[0].lower(), text, (words[0], f"what is {words[0]}", meaning))


def read_dictd(source: str, root: Path, name: str) -> Iterator[Passage]:
    """Entries of a dictd database, as "headword: first lines"."""
    index = (root / f"usr/share/dictd/{name}.index").read_text("utf-8").splitlines()
    database = gzip.decompress((root / f"usr/share/dictd/{name}.dict.dz").read_bytes())
    seen: set[int] = set()
    for line in index:
        word, *place = line.split("\t")
        start, size = map(_number, place[:2])
        if start in seen or word.startswith("00-") or not word[:1].isalpha():
            continue
        seen.add(start)
        entry = database[start : start + size].decode("utf-8", "replace")
        _, _, body = entry.partition("\n")
        text = shortened(_NOTE.sub("", _BRACES.sub("", body)), 320)
        if len(text) >= SHORTEST:
            yield Passage(source, word.lower(), f"{word}: {text}", (word, f"what is {word}?"))


_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _number(digits: str) -> int:
    """A number in dictd's base 64."""
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS.index(digit)
    return value
