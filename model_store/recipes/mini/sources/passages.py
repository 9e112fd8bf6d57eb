"""A passage of a source document with questions that it answers, and the split by documents.

Depends on texts alone. Invariant: all passages of a document are on the same side of the split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 480
"""Characters of a passage; what is longer ends at a sentence."""
SHORTEST = 24
HELD_OUT = 8
"""One document in so many is held out."""

_SENTENCE = re.compile(r"(?<=[.!?:;])\s+")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, and queries that it is relevant to.

    `document` is the file that the text is from, `questions` are queries a person might type, none
    of which is a sentence of the text.
    """

    source: str
    document: str
    text: str
    questions: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the passage is for measurements alone."""
        return is_held_out(self.source, self.document)


def is_held_out(source: str, document: str) -> bool:
    """Whether a document is on the side of measurements, by SHA-256."""
    digest = hashlib.sha256(f"{source}/{document}".encode()).digest()
    return digest[0] % HELD_OUT == 0


def one_line(text: str) -> str:
    """A text with every run of spaces and line ends as one space."""
    return _SPACES.sub(" ", text).strip()


def shortened(text: str, longest: int = LONGEST) -> str:
    """The first sentences of a text, at most `longest` characters; of a longer sentence, its
    words."""
    text = one_line(text)
    if len(text) <= longest:
        return text

    kept = ""
    for sentence in _SENTENCE.split(text):
        if len(kept) + len(sentence) >= longest:
            break
        kept = f"{kept} {sentence}".strip()
    return kept or text[:longest].rsplit(" ", 1)[0]


def joined(paragraphs: list[str], longest: int = LONGEST) -> Iterator[str]:
    """Paragraphs of a section as passages: short ones together, long ones shortened."""
    kept = ""
    for paragraph in paragraphs:
        text = one_line(paragraph)
        if kept and len(kept) + len(text) > longest:
            yield shortened(kept, longest)
            kept = ""
        kept = f"{kept} {text}".strip()
    if len(kept) >= SHORTEST:
        yield shortened(kept, longest)
