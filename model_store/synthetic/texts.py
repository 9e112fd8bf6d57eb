"""Free English text that ships with CPython: the source of gmr-tiny's words.

There are three sources, all under the PSF licence or the Unicode licence: the documentation topics
of `pydoc_data`, the docstrings of the standard library, and the names of characters in
`unicodedata`, a wide list of everyday nouns. Does not depend on prompts or models. Invariant: a
passage is in the training or in the held-out split by its own digest, never in both.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import pydoc_data.topics
import re
import sysconfig
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal

Split = Literal["train", "heldout"]

_SKIPPED = {"site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}
_PASSAGE_CHARS = range(80, 600)
_MARKUP = re.compile(r"[`*|]+|^\s*(>>>|\.\.\.|::).*$", re.MULTILINE)
_SYMBOL_BLOCKS = (range(0x2190, 0x2C00), range(0x1F300, 0x1FAFF))
_DIGIT = re.compile(r"[0-9]")
_WORD = re.compile(r"[a-z]{3,}")


@cache
def passages(split: Split) -> tuple[str, ...]:
    """Paragraphs of running English in a stable order, 80 to 600 characters, without duplicates.

    One in eight is held out.
    """
    unique: set[str] = set()
    for text in _documents():
        unique.update(" ".join(paragraph.split()) for paragraph in _paragraphs(text))

    prose = sorted(text for text in unique if len(text) in _PASSAGE_CHARS and _is_prose(text))
    return tuple(text for text in prose if _is_held_out(text) == (split == "heldout"))


@cache
def words() -> tuple[str, ...]:
    """Lower-case words of the texts and of Unicode character names, sorted."""
    found: set[str] = set()
    for text in _documents():
        found.update(_WORD.findall(text.lower()))
    for name in character_names():
        found.update(_WORD.findall(name))
    return tuple(sorted(word for word in found if len(word) <= 14))


@cache
def character_names() -> tuple[str, ...]:
    """Names of symbols and pictographs, such as "steaming bowl", in lower case."""
    names = {unicodedata.name(chr(code), "") for code in chain(*_SYMBOL_BLOCKS)}
    return tuple(sorted(name.lower() for name in names if name and not _DIGIT.search(name)))


@cache
def _documents() -> tuple[str, ...]:
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(
        path
        for path in library.rglob("*.py")
        if not _SKIPPED & set(path.relative_to(library).parts)
    )

    topics = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    docstrings = chain.from_iterable(map(_docstrings, sources))
    return (*topics, *docstrings)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield inspect.cleandoc(text)


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n\s*\n", _MARKUP.sub("", text))


def _is_prose(text: str) -> bool:
    letters = sum(char.isalpha() or char == " " for char in text)
    return letters > 0.85 * len(text) and text.isascii()


def _is_held_out(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 8 == 0
