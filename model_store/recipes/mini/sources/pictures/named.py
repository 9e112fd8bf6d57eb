"""A picture file with its names, and the split by pictures.

Depends on names and paths, not on pixels. Invariant: variants of one picture, whose files differ in
a number or in whom they show, are on the same side of the split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from model_store.recipes.mini.sources.passages import is_held_out
from model_store.synthetic.lexical import STOPWORDS

MOST_WORDS = 10
_LETTERS = re.compile(r"[a-z]+")
_VARIANTS = frozenset(("man", "woman", "person", "men", "women", "male", "female", "tone", "skin"))


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """A picture with a title and keywords; the file is a PNG or an SVG."""

    source: str
    path: Path
    title: str
    keywords: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the picture is for measurements alone."""
        stem = _LETTERS.findall(self.title.lower())
        kept = [word for word in stem if word not in _VARIANTS]
        return is_held_out("pictures", " ".join(kept or stem))

    @property
    def words(self) -> tuple[str, ...]:
        """Content words that are true of the picture, those of its title first."""
        return content_words((self.title, *self.keywords))

    @property
    def text(self) -> str:
        """Title and keywords as one line."""
        return ", ".join(dict.fromkeys((self.title, *self.keywords)))


def by_source(pictures: Iterable[NamedPicture]) -> dict[str, list[NamedPicture]]:
    """The pictures of each source, by its name, in alphabetical order of names."""
    found: dict[str, list[NamedPicture]] = {}
    for picture in sorted(pictures, key=lambda picture: picture.source):
        found.setdefault(picture.source, []).append(picture)
    return found


def asks_for(picture: NamedPicture, rng: Random) -> str:
    """A picture's title or one of its keywords; it must have a content word."""
    named = [text for text in (picture.title, *picture.keywords) if content_words((text,))]
    return picture.title if rng.random() < 0.5 else rng.choice(named)


def content_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The first words of three letters or more that are no stop words, each once."""
    found: dict[str, None] = {}
    for text in texts:
        for word in _LETTERS.findall(text.lower()):
            if len(word) >= 3 and word not in STOPWORDS:
                found[word] = None
    return tuple(found)[:MOST_WORDS]
