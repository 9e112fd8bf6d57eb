"""Passages of books in HTML: the text under each heading.

Depends on the tags of headings and paragraphs. Invariant: every passage is of one section, and
program listings are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from model_store.recipes.mini.sources.passages import SHORTEST, Passage, joined, one_line

_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5"))
_LEFT_OUT = frozenset(("pre", "script", "style", "table", "head"))
_TEXT = frozenset(("p", "li", "dd"))
_NUMBER = re.compile(r"^(Chapter|Appendix)?\s*[\dA-Z]+(\.\d+)*\.\s*")


class _Sections(HTMLParser):
    """Collects (heading, paragraphs)."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[tuple[str, list[str]]] = [("", [])]
        self._hidden, self._text, self._in = 0, "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _LEFT_OUT:
            self._hidden += 1
        elif tag in _HEADINGS or tag in _TEXT:
            self._close()
            self._in = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in _LEFT_OUT:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _HEADINGS or tag in _TEXT:
            self._close()

    def handle_data(self, data: str) -> None:
        if not self._hidden and self._in:
            self._text += data

    def _close(self) -> None:
        text = one_line(self._text)
        if self._in in _HEADINGS and text:
            self.sections.append((_NUMBER.sub("", text), []))
        elif len(text) >= SHORTEST:
            self.sections[-1][1].append(text)
        self._text, self._in = "", ""


def read_book(source: str, root: Path, pattern: str) -> Iterator[Passage]:
    """Passages of the pages of an unpacked package that match a pattern."""
    for path in sorted(root.glob(pattern)):
        yield from page_passages(source, path.name, path.read_text("utf-8", "replace"))


def page_passages(source: str, document: str, page: str) -> Iterator[Passage]:
    """Passages of one page; a heading of two words or more asks for the first one under it."""
    parser = _Sections()
    parser.feed(page)
    for heading, paragraphs in parser.sections:
        for number, text in enumerate(joined(paragraphs)):
            asks = number == 0 and len(heading.split()) > 1
            yield Passage(source, document, text, (heading,) if asks else ())
