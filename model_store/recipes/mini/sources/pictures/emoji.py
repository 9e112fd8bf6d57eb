"""Emoji of emoji-datasource-google, with emojilib's keywords.

Depends on the two packages' files. Invariant: every picture has a title, and no skin tone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from model_store.recipes.mini.sources.pictures.named import NamedPicture

SOURCE = "emoji-datasource-google"


def read_emoji(pictures: Path, keywords: Path) -> Iterator[NamedPicture]:
    """Pictures of an unpacked emoji-datasource-google with keywords of an unpacked emojilib."""
    listed = json.loads((pictures / "package" / "emoji.json").read_text(encoding="utf-8"))
    known = json.loads(
        (keywords / "package" / "dist" / "emoji-en-US.json").read_text(encoding="utf-8")
    )
    folder = pictures / "package" / "img" / "google" / "64"
    for emoji in listed:
        character = "".join(chr(int(point, 16)) for point in emoji["unified"].split("-"))
        path = folder / emoji["image"]
        if character not in known or not path.exists():
            continue
        title, *words = [word.replace("_", " ") for word in known[character]]
        plain = [word for word in words if word.isascii() and word[:1].isalpha()]
        yield NamedPicture(SOURCE, path, title, tuple(plain))
