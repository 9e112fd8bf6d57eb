"""All passages of the packages' texts.

Depends on the readers and the packages. Invariant: no two passages have the same text, and the
same packages give the same passages in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from model_store.recipes.mini.sources.dictionaries import read_dictd, read_wordnet
from model_store.recipes.mini.sources.html_books import read_book
from model_store.recipes.mini.sources.manual_pages import read_pages
from model_store.recipes.mini.sources.packages import PACKAGES, unpacked
from model_store.recipes.mini.sources.passages import Passage, shortened
from model_store.recipes.mini.sources.perl_documentation import read_pods
from model_store.recipes.mini.sources.restructured_text import read_sources

Reader = Callable[[str, Path], Iterator[Passage]]
LONGEST_QUESTION = 160

KEPT = {"wordnet-base": 0.34, "postgresql-doc-15": 0.35, "dict-foldoc": 0.7}
"""The share of a source's documents that is read, where all of them would outweigh the others."""

_READERS: dict[str, Reader] = {
    "wordnet-base": read_wordnet,
    "python3.11-doc": read_sources,
    "perl-doc": read_pods,
    "debian-faq": partial(read_book, pattern="usr/share/doc/debian/FAQ/*.en.html"),
    "debian-reference-en": partial(read_book, pattern="usr/share/debian-reference/*.en.html"),
    "postgresql-doc-15": partial(read_book, pattern="usr/share/doc/postgresql-doc-15/html/*.html"),
    "dict-foldoc": partial(read_dictd, name="foldoc"),
    "dict-jargon": partial(read_dictd, name="jargon"),
    **dict.fromkeys(
        (
            "coreutils",
            "findutils",
            "git-man",
            "manpages",
            "manpages-dev",
            "tar",
            "util-linux",
        ),
        read_pages,
    ),
}


def read_passages(folder: Path) -> Iterator[Passage]:
    """Passages of all packages, which are fetched to `folder` if they are not there.

    Raises `SourceUnavailable`.
    """
    seen: set[str] = set()
    verbs = _verbs(folder)
    for package in PACKAGES:
        reader = _READERS.get(package.name)
        if reader is None:
            continue
        for passage in reader(package.name, unpacked(package, folder)):
            if passage.text not in seen and _is_kept(passage):
                seen.add(passage.text)
                yield replace(passage, questions=tuple(_asked(passage.questions, verbs)))


def _is_kept(passage: Passage) -> bool:
    """Whether a document is read, by SHA-256; it is not the digest that decides the split."""
    digest = hashlib.sha256(f"kept/{passage.source}/{passage.document}".encode()).digest()
    return digest[0] < 256 * KEPT.get(passage.source, 1.0)


def _asked(questions: tuple[str, ...], verbs: frozenset[str]) -> Iterator[str]:
    """Questions of a bounded length; "how to" stays only before a verb."""
    for question in questions:
        words = question.split()
        if words[:2] == ["how", "to"] and words[2] not in verbs:
            continue
        yield shortened(question, LONGEST_QUESTION)


def _verbs(folder: Path) -> frozenset[str]:
    """WordNet's verbs of one word."""
    (package,) = (package for package in PACKAGES if package.name == "wordnet-base")
    index = unpacked(package, folder) / "usr/share/wordnet/index.verb"
    found: set[str] = set()
    for line in index.read_text(encoding="utf-8").splitlines():
        if line[:1].isalpha():
            found.add(line.split(" ", 1)[0])
    return frozenset(found)
