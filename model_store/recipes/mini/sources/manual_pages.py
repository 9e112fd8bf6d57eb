"""Passages of manual pages in the man(7) macros: sections, options and a page's one-line purpose.

Depends on roff source as text, not on a formatter. Invariant: macros and escapes do not reach a
passage.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from model_store.recipes.mini.sources.passages import SHORTEST, Passage, joined, shortened

_MOST_PASSAGES = 12
"""Of one page: a shell's manual is not to outweigh all others."""
_SKIPPED = frozenset(
    (
        "SYNOPSIS", "AUTHOR", "AUTHORS", "COPYRIGHT", "SEE ALSO", "REPORTING BUGS", "LIBRARY",
        "ATTRIBUTES", "VERSIONS", "HISTORY", "STANDARDS", "CONFORMING TO", "AVAILABILITY",
        "COLOPHON", "GIT", "EXAMPLES", "EXAMPLE", "BUGS",
    )
)  # fmt: skip
_ESCAPES = (
    (re.compile(r'\\".*'), ""),
    (re.compile(r"\\f(\[[^]]*\]|\(..|.)"), ""),
    (re.compile(r"\\s[-+]?\d"), ""),
    (re.compile(r"\\\[?\(?(aq|cq|oq)\]?"), "'"),
    (re.compile(r"\\\((lq|rq|dq)|\\\[(lq|rq|dq)\]"), '"'),
    (re.compile(r"\\\(em|\\\[em\]|\\\(en|\\\[en\]"), " - "),
    (re.compile(r"\\\(bu|\\\[bu\]"), ""),
    (re.compile(r"\\\[ti\]|\\\(ti"), "~"),
    (re.compile(r"\\\[ha\]|\\\(ha"), "^"),
    (re.compile(r"\\\[rs\]|\\\(rs|\\e"), r"/"),
    (re.compile(r"\\\[[^]]*\]|\\\(..|\\\*\(..|\\\*\[[^]]*\]|\\\*."), ""),
    (re.compile(r"\\[&/,|^:%c]"), ""),
    (re.compile(r"\\-"), "-"),
    (re.compile(r"\\(.)"), r"\1"),
)
_FONTS = frozenset(("BR", "RB", "BI", "IB", "IR", "RI"))
_FONT = frozenset(("B", "I", "SM", "SB"))
_INLINE = _FONTS | _FONT | {"UR", "MR"}
_BREAKS = frozenset(("PP", "P", "LP", "sp", "HP", "RS", "RE", "br", "IP", "SS"))


@dataclass(slots=True)
class _Section:
    """A section's paragraphs, and its (tag, text) entries."""

    paragraphs: list[str] = field(default_factory=lambda: [""])
    entries: list[tuple[str, str]] = field(default_factory=list)


def read_pages(source: str, root: Path) -> Iterator[Passage]:
    """Passages of the English pages of an unpacked package."""
    for path in sorted(root.glob("usr/share/man/man[1-8]/*.gz")):
        if not path.is_symlink() and path.stat().st_size > 200:
            raw = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
            yield from page_passages(source, path.name.removesuffix(".gz"), raw)


def page_passages(source: str, document: str, raw: str) -> Iterator[Passage]:
    """Passages of one page; none of a page that only names another, or that is in mdoc(7)."""
    if raw.lstrip().startswith(".so ") or "\n.Dd" in raw:
        return

    sections = _sections(raw)
    names, _, purpose = " ".join(sections.pop("NAME", _Section()).paragraphs).partition(" - ")
    name, purpose = names.split(",")[0].strip(), purpose.strip()
    if not name or not purpose:
        return

    questions = tuple(asked(purpose, document))
    for number, text in enumerate(_texts(name, sections)):
        if number == _MOST_PASSAGES:
            break
        yield Passage(source, document, text, questions if number == 0 else ())


def asked(purpose: str, document: str) -> Iterator[str]:
    """A page's purpose as queries: as it is, and as a question where it begins with a verb."""
    yield purpose
    if document.endswith((".1", ".8", ".2", ".3")) and purpose[0].islower():
        yield f"how to {purpose}"


def _texts(name: str, sections: dict[str, _Section]) -> Iterator[str]:
    for title, section in sections.items():
        if title in _SKIPPED:
            continue
        paragraphs = [text for text in section.paragraphs if len(text) >= SHORTEST]
        for text in joined(paragraphs):
            yield f"{name}: {text}"
        for tag, text in section.entries:
            if len(text) >= SHORTEST:
                yield shortened(f"{name} {tag}: {text}")


def _sections(raw: str) -> dict[str, _Section]:
    """A page's sections by title."""
    reading = _Reading()
    for line in raw.splitlines():
        macro, arguments = _macro(line)
        text = _plain(arguments)
        if macro is None or macro in _INLINE:
            reading.text(text)
        else:
            reading.macro(macro, text)
    return reading.sections


@dataclass(slots=True)
class _Reading:
    """The place in a page: its section, the entry whose text is read, and what comes next."""

    sections: dict[str, _Section] = field(default_factory=dict)
    section: _Section = field(default_factory=_Section)
    in_entry: bool = False
    awaits_tag: bool = False
    literal: bool = False

    def macro(self, name: str, text: str) -> None:
        """Follow a macro that is not of a font."""
        if name in ("nf", "EX", "fi", "EE"):
            self.literal = name in ("nf", "EX")
        elif name == "SH":
            self.section = self.sections.setdefault(text.strip('" ').upper(), _Section())
            self.in_entry = False
        elif name in ("TP", "TQ"):
            self.awaits_tag, self.in_entry = True, False
        elif name == "IP" and text:
            self.section.entries.append((text.strip('"'), ""))
            self.in_entry = True
        elif name in _BREAKS:
            self.in_entry = self.in_entry and name == "sp"
            self.section.paragraphs.append("")

    def text(self, text: str) -> None:
        """Add a line to what is read."""
        if self.literal:
            return

        if self.awaits_tag:
            self.section.entries.append((text, ""))
            self.awaits_tag, self.in_entry = False, True
        elif self.in_entry:
            tag, before = self.section.entries[-1]
            self.section.entries[-1] = tag, f"{before} {text}".strip()
        else:
            self.section.paragraphs[-1] = f"{self.section.paragraphs[-1]} {text}".strip()


def _macro(line: str) -> tuple[str | None, str]:
    """A line's macro, None for text, and the rest; arguments of alternating fonts are joined."""
    if not line.startswith((".", "'")):
        return None, line

    name, _, rest = line[1:].lstrip().partition(" ")
    if name in _FONTS:
        words = re.findall(r'"([^"]*)"|(\S+)', rest)
        rest = "".join(quoted or plain for quoted, plain in words)
    elif name in _FONT:
        rest = rest.replace('"', "")
    return name, rest


def _plain(text: str) -> str:
    for pattern, replacement in _ESCAPES:
        text = pattern.sub(replacement, text)
    return text
