"""Passages of Python's documentation, from its reStructuredText sources.

Depends on the text of directives and headings, not on docutils. Invariant: markup does not reach a
passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from model_store.recipes.mini.sources.passages import SHORTEST, Passage, joined, one_line

_SOURCES = "usr/share/doc/python3.11/html/_sources"
_PARTS = ("library", "faq", "tutorial", "howto", "reference", "glossary", "using")
_ENTRY = re.compile(
    r"^( *)\.\. (function|method|class|classmethod|staticmethod|attribute|data|exception|option"
    r"|decorator|opcode|describe|cmdoption|envvar)::\s*(.+)$"
)
_HEADING = re.compile(r"^([=\-~^\"'*#+.])\1{2,}$")
_ROLE = re.compile(r":[a-z:+]+:`([^`]*)`")
_TARGET = re.compile(r"^(.*?)\s*<[^>]*>$")
_MARKS = (
    (re.compile(r"``([^`]*)``"), r"\1"),
    (re.compile(r"`([^`<]*?)\s*(<[^>]*>)?`_*"), r"\1"),
    (re.compile(r"(?<!\w)\*{1,2}([^*\s][^*]*?)\*{1,2}(?!\w)"), r"\1"),
    (re.compile(r"\|(\w+)\|"), r"\1"),
    (re.compile(r"\\(.)"), r"\1"),
)
_QUESTION = re.compile(r"^(how|what|why|is|are|can|does|do|where|when|which|who|should)\b", re.I)


def read_sources(source: str, root: Path) -> Iterator[Passage]:
    """Passages of the parts of the documentation that explain something."""
    folder = root / _SOURCES
    for path in sorted(folder.rglob("*.rst.txt")):
        name = path.relative_to(folder).as_posix()
        if name.startswith(_PARTS):
            yield from file_passages(source, name, path.read_text(encoding="utf-8"))


def file_passages(source: str, document: str, text: str) -> Iterator[Passage]:
    """Passages of one file: the text under each heading, and of each described name."""
    lines = text.expandtabs().splitlines()
    module = document.rsplit("/", 1)[-1].removesuffix(".rst.txt")
    heading, block = "", list[str]()
    number = 0
    while number < len(lines):
        line = lines[number]
        entry = _ENTRY.match(line)
        under = lines[number + 1] if number + 1 < len(lines) else ""
        if entry:
            body, number = _indented(lines, number + 1, len(entry[1]))
            yield from _described(source, document, module, entry[3], body)
        elif line.strip() and not line.startswith(" ") and _HEADING.match(under):
            yield from _headed(source, document, heading, block)
            heading, block, number = plain(line), [], number + 2
        else:
            block.append(line)
            number += 1
    yield from _headed(source, document, heading, block)


def plain(text: str) -> str:
    """A text without inline markup."""

    def named(match: re.Match[str]) -> str:
        title = _TARGET.match(match[1])
        return (title[1] if title else match[1]).lstrip("~!")

    text = _ROLE.sub(named, text)
    for pattern, replacement in _MARKS:
        text = pattern.sub(replacement, text)
    return one_line(text)


def _indented(lines: list[str], start: int, margin: int) -> tuple[list[str], int]:
    """Lines that are further right than a directive, and the number of the first behind them.

    Ends at a directive of its own kind within.
    """
    number = start
    while number < len(lines):
        line = lines[number]
        if line.strip() and (len(line) - len(line.lstrip()) <= margin or _ENTRY.match(line)):
            break
        number += 1
    return lines[start:number], number


def _described(
    source: str, document: str, module: str, signature: str, body: list[str]
) -> Iterator[Passage]:
    """The passage of a function, class or option, asked for by its first sentence."""
    paragraphs = _paragraphs(body)
    if not paragraphs:
        return

    name = signature.split("(", maxsplit=1)[0].strip()
    qualified = name if name.startswith((f"{module}.", "-")) else f"{module}.{name}"
    texts = list(joined(paragraphs))
    if texts:
        yield Passage(source, document, f"{qualified}: {texts[0]}")


def _headed(source: str, document: str, heading: str, block: list[str]) -> Iterator[Passage]:
    """Passages of the text under a heading, which asks for the first one."""
    for number, text in enumerate(joined(_paragraphs(block))):
        questions = (heading,) if number == 0 and _asks(heading) else ()
        yield Passage(source, document, text, questions)


def _asks(heading: str) -> bool:
    return (len(heading.split()) > 1 and "---" not in heading) or bool(_QUESTION.match(heading))


def _paragraphs(lines: list[str]) -> list[str]:
    """Paragraphs of prose: no directives with their contents, no literal blocks, no tables."""
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    found: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        first = next((line for line in paragraph.splitlines() if line.strip()), "")
        inside = len(first) - len(first.lstrip()) > margin
        if inside or first.lstrip().startswith(("..", ">>>", "+-", "==", ":", "|", "--")):
            continue
        text = plain(paragraph).removesuffix("::").removesuffix(":")
        if len(text) >= SHORTEST:
            found.append(text)
    return found
