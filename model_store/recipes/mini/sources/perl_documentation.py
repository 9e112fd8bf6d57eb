"""Questions of the Perl FAQ with their answers, and passages of Perl's other manuals in pod.

Depends on pod's headings and paragraphs. Invariant: a question of the FAQ belongs to the passage
that begins its answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from model_store.recipes.mini.sources.passages import SHORTEST, Passage, joined, one_line

_PODS = "usr/share/perl/*/pod/*.pod"
_CODE = re.compile(r"[A-Z]<<\s(.*?)\s>>|[A-Z]<([^<>]*)>")
_HEADING = re.compile(r"^=head[1-4]\s+(.*)$|^=item\s+(.*)$", re.M)


def read_pods(source: str, root: Path) -> Iterator[Passage]:
    """Passages of all manuals of the package but histories of versions."""
    for path in sorted(root.glob(_PODS)):
        if not path.name.endswith("delta.pod"):
            yield from pod_passages(source, path.name, path.read_text("utf-8", "replace"))


def pod_passages(source: str, document: str, pod: str) -> Iterator[Passage]:
    """Passages of one manual; a heading asks for the first passage under it."""
    for part in re.split(r"(?m)^(?==(?:head\d|item)\b)", pod):
        head = _HEADING.match(part)
        if not head or "\n" not in part:
            continue
        heading = plain(head[1] or head[2] or "")
        paragraphs = _paragraphs(part.split("\n", 1)[1])
        for number, text in enumerate(joined(paragraphs)):
            asks = number == 0 and head[1] and len(heading.split()) > 1 and not heading.isupper()
            yield Passage(source, document, text, (heading,) if asks else ())
            if number == 2:
                break


def plain(text: str) -> str:
    """A text without pod's formatting codes."""
    before = ""
    while before != text:
        before, text = text, _CODE.sub(lambda code: _shown(code[1] or code[2] or ""), text)
    return one_line(text)


def _shown(content: str) -> str:
    """What a reader sees of a code: of a link with a text, the text."""
    return content.split("|", 1)[0]


def _paragraphs(body: str) -> list[str]:
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", body.lstrip("\n")):
        if paragraph[:1].isspace() or paragraph.startswith("="):
            continue
        text = plain(paragraph)
        if len(text) >= SHORTEST:
            found.append(text)
    return found
