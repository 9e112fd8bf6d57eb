"""Drawings of the Open Clip Art Library with their titles.

Depends on the metadata in SVG files, as text. Invariant: a drawing without a title, or of more than
300 kB, is left out; where many have one title, which is a collection's, the file's name replaces
it, and few of one name are kept.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from model_store.recipes.mini.sources.passages import one_line
from model_store.recipes.mini.sources.pictures.named import NamedPicture, content_words

SOURCE = "openclipart-svg"
_LARGEST = 300_000
_TITLE = re.compile(r"<dc:title[^>]*>([^<]*)</dc:title>")
_KEYWORD = re.compile(r"<rdf:li[^>]*>([^<]*)</rdf:li>")
_NAME = re.compile(r"[a-z]+")
_NO_KEYWORDS = ("", "hash", "theme", "icon", "icons")
_MOST_KEYWORDS = 8
_MOST_OF_ONE_TITLE = 8


def read_clip_art(root: Path) -> Iterator[NamedPicture]:
    """Drawings of an unpacked package."""
    found: list[NamedPicture] = []
    for path in sorted((root / "usr" / "share" / "openclipart" / "svg").rglob("*.svg")):
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            continue
        picture = drawing(path, path.read_text(encoding="utf-8", errors="replace"))
        if picture is not None:
            found.append(picture)

    titles = Counter(picture.title for picture in found)
    kept: Counter[str] = Counter()
    for picture in found:
        title = picture.title
        if titles[title] > _MOST_OF_ONE_TITLE:
            title = " ".join(_NAME.findall(picture.path.stem.lower()))
        kept[title] += 1
        if content_words((title,)) and kept[title] <= _MOST_OF_ONE_TITLE:
            yield replace(picture, title=title)


def drawing(path: Path, svg: str) -> NamedPicture | None:
    """The picture of one file; None without a title."""
    found = _TITLE.search(svg)
    title = one_line(html.unescape(found[1])) if found else ""
    title = title.rpartition(" - ")[2].replace("_", " ").rstrip("0123456789 ")
    if len(title) < 3:
        return None
    keywords = [one_line(html.unescape(word)) for word in _KEYWORD.findall(svg)]
    kept = [word for word in keywords if word not in _NO_KEYWORDS and "@" not in word]
    kept = kept[:_MOST_KEYWORDS]
    return NamedPicture(SOURCE, path, title, tuple(kept))
