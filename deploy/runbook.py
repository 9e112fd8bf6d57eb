"""Writes the runbook's page, which gateways serve, from `docs/runbook.md`: `python -m
deploy.runbook`.

Depends on Markdown, not on alerts. Invariant: each section has its heading in small letters as its
anchor, as on the page that it is written from.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "docs" / "runbook.md"
PAGE = ROOT / "service" / "gateway" / "runbook" / "index.html"
_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>Runbook of gmr-rerank</title>
    <link rel="icon" href="runbook/icon.svg" type="image/svg+xml">
    <link rel="stylesheet" href="runbook/page.css">
  </head>
  <body>
    <nav class="links" aria-label="Other pages">
      <a href="playground">Playground</a>
      <a href="docs">API</a>
    </nav>
    <main>
{content}    </main>
  </body>
</html>
"""


def page_of(text: str) -> str:
    """The HTML page of the runbook's Markdown, with a list of its sections after the title."""
    markdown = MarkdownIt("commonmark")
    tokens = markdown.parse(text)
    headings: list[str] = []
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            heading = tokens[number + 1].content
            token.attrSet("id", heading.lower())
            headings.append(heading)
        if token.children:
            token.children = _with_parts(_without_other_pages(token.children))

    content = str(markdown.renderer.render(tokens, markdown.options, {}))
    before, first, sections = content.partition("<h2")
    return _PAGE.format(content=before + _contents(headings) + first + sections)


def _contents(headings: list[str]) -> str:
    """The list of the sections."""
    items = [f'<li><a href="#{each.lower()}">{each}</a></li>\n' for each in headings]
    return f'<ul class="contents">\n{"".join(items)}</ul>\n'


def _without_other_pages(tokens: list[Token]) -> list[Token]:
    """Inline tokens whose links to other pages, which a gateway does not serve, are plain text."""
    kept: list[Token] = []
    is_open = False
    for token in tokens:
        if token.type == "link_open" and not str(token.attrGet("href")).startswith("#"):
            is_open = True
        elif token.type == "link_close" and is_open:
            is_open = False
        else:
            kept.append(token)
    return kept


def _with_parts(tokens: list[Token]) -> list[Token]:
    """Inline tokens with each part of a section (**Means**, **First look**, **Fix**) on a line of
    its own."""
    shown = [token for token in tokens if token.content or token.type != "text"]
    for token, following in pairwise(shown):
        if token.type == "softbreak" and following.type == "strong_open":
            token.type, token.tag = "hardbreak", "br"
    return shown


if __name__ == "__main__":
    PAGE.write_text(page_of(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
