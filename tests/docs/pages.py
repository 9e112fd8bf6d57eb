"""A parser for the project's pages: code blocks, the commands in them, inline code, links and
headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docker" / "README.md",
    ROOT / "deploy" / "helm" / "README.md",
    ROOT / "examples" / "rag" / "README.md",
]
CONFIGURATION = [
    *sorted((ROOT / "deploy" / "alerts").glob("*.yaml")),
    *sorted((ROOT / "deploy" / "dashboards").glob("*.json")),
    *sorted((ROOT / "deploy" / "helm" / "templates").rglob("*.*")),
    ROOT / "deploy" / "helm" / "values.yaml",
    ROOT / "deploy" / "helm" / "values-prod.yaml",
    ROOT / "docker-compose.yml",
    *sorted((ROOT / "docker").glob("*.Dockerfile")),
    ROOT / "Makefile",
]
"""Files beside the pages that name what the code has."""

_BLOCK = re.compile(r"^```(\w*)[^`\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"<(\w+)>")
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$", re.MULTILINE)
_KEYWORDS = {"export", "do", "done", "then"}
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")
_OPERATORS = {"&&", "||", "|", ";", "&", "(", ")"}
_SHELL = {"", "sh", "console"}


@dataclass(frozen=True)
class Command:
    """A command line: its location, its environment variables, and its words."""

    place: str
    environment: tuple[str, ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.words)}"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each code block."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def inline(page: Path) -> list[str]:
    """The code within sentences and tables."""
    return _INLINE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """The targets of the links."""
    return _LINK.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub generates them."""
    headings = _HEADING.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    }


def lines(page: Path) -> Iterator[str]:
    """The lines that a reader types, with continued lines joined; of a console session, those
    after the prompt."""
    for language, text in blocks(page):
        if language not in _SHELL:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if language != "console":
                yield line
            elif line.startswith("$ "):
                yield line.removeprefix("$ ")


def commands(page: Path) -> Iterator[Command]:
    """The command lines in the page's code blocks."""
    text = "\n".join(lines(page))
    yield from parsed(name_of(page), text)


def inline_commands(page: Path, program: str) -> Iterator[Command]:
    """The command lines in inline code that begin with a program."""
    for code in inline(page):
        if re.match(rf"([A-Z0-9_]+=\S+ )*{program}( |$)", code):
            yield from parsed(name_of(page), code)


def parsed(place: str, text: str) -> Iterator[Command]:
    """The command lines of shell text, without the variables that are set before them."""
    plain = _COMMENT.sub("", _PLACEHOLDER.sub(r"\1", text))
    reader = shlex.shlex(plain, posix=True, punctuation_chars="();|&\n")
    reader.commenters = ""
    reader.whitespace = " \t"
    reader.whitespace_split = True
    words: list[str] = []
    for token in [*reader, ";"]:
        if token in _OPERATORS or not token.strip("\n;&|()"):
            environment = []
            while words and _ASSIGNMENT.match(words[0]):
                environment.append(words.pop(0))
            if words and words[0] in _KEYWORDS:
                words.pop(0)
            if words:
                yield Command(place, tuple(environment), tuple(words))
            words = []
        else:
            words.append(token)
