"""Texts of rows in HTML and Markdown: as text, whatever they hold.

Depends on characters alone. Invariant: no character of a text becomes markup, turns the direction
of what follows, or is not seen; a long text is cut, and its length said.
"""

from __future__ import annotations

import html
import re
import unicodedata

MAX_CHARACTERS = 420
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~^:@$])")
_STACKED = 4
"""Combining marks on one letter that are kept: hundreds would paint over other lines."""


def html_text(text: str, most: int = MAX_CHARACTERS) -> str:
    """A text as HTML, cut after so many characters."""
    parts = [
        f'<span class="unseen">{part}</span>' if unseen else html.escape(part)
        for part, unseen in _parts(text[:most])
    ]
    return "".join(parts) + _rest(text, most, '<span class="more">', "</span>")


def plain_html(text: str, most: int = MAX_CHARACTERS) -> str:
    """A text for attributes and SVG, without elements."""
    return "".join(html.escape(part) for part, _ in _parts(text[:most]))


def markdown_text(text: str, most: int = MAX_CHARACTERS) -> str:
    """A text as Markdown on one line, for a cell of a table, cut after so many characters."""
    parts: list[str] = []
    for part, unseen in _parts(text[:most]):
        plain = f"[{part}]" if unseen else part
        plain = re.sub(r"\s*[\r\n]+\s*", " ", plain)
        parts.append(_MARKS.sub(r"\\\1", html.escape(plain, quote=False)))
    return "".join(parts).strip() + _rest(text, most, "*", "*")


def _parts(text: str) -> list[tuple[str, bool]]:
    """Runs of a text, and names of characters that are not seen, each marked as such."""
    parts: list[tuple[str, bool]] = []
    begin = 0
    for match in _UNSEEN.finditer(text):
        if match.start() > begin:
            parts.append((_unstacked(text[begin : match.start()]), False))
        parts.append((f"U+{ord(match[0]):04X}", True))
        begin = match.end()
    if begin < len(text):
        parts.append((_unstacked(text[begin:]), False))
    return parts


def _unstacked(text: str) -> str:
    """A text whose letters have few combining marks each."""
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _STACKED:
            kept.append(character)
    return "".join(kept)


def _rest(text: str, most: int, before: str, after: str) -> str:
    """The length of a text that was cut."""
    return f" {before}… {len(text):,} characters{after}" if len(text) > most else ""
