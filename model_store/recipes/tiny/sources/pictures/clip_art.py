"""Drawings of the Open Clip Art Library with their titles.

Depends on the metadata in SVG files, as text. Invariant: a drawing without a title, or of more than
300 kB, is left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from model_store.recipes.tiny.sources.passages import one_line
from model_store.recipes.tiny.sources.pictures.named import NamedPicture

SOURCE = "openclipart-svg"
_LARGEST = 300_000
_TITLE = re.compile(r"<dc:title[^>]*>([^<]*)</dc:title>")
_KEYWORD = re.compile(r"<rdf:li[^>]*>([^<]*)</rdf:li>")
_MOST_KEYWORDS = 8


def read_clip_art(root: Path) -> Iterator[NamedPicture]:
    """Drawings of an unpacked package."""
    for path in sorted((root / "usr" / "share" / "openclipart" / "svg").rglob("*.svg")):
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            continue
        picture = drawing(path, path.read_text(encoding="utf-8", errors="replace"))
        if picture is not None:
            yield picture


def drawing(path: Path, svg: str) -> NamedPicture | None:
    """The picture of one file; None without a title."""
    found = _TITLE.search(svg)
    title = one_line(html.unescape(found[1])) if found else ""
    title = title.replace("_", " ").rstrip("0123456789 ")
    if len(title) < 3:
        return None
    keywords = [one_line(html.unescape(word)) for word in _KEYWORD.findall(svg)]
    kept = [word for word in keywords if word and "@" not in word][:_MOST_KEYWORDS]
    return NamedPicture(SOURCE, path, title, tuple(kept))
