"""Stamps of Tux Paint with the sentence on each.

Depends on the package's files. Invariant: letters, digits and coins, which look alike, are left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model_store.recipes.mini.sources.pictures.named import NamedPicture

SOURCE = "tuxpaint-stamps-default"
_LEFT_OUT = ("alphabets", "money", "math")


def read_stamps(root: Path) -> Iterator[NamedPicture]:
    """Stamps of an unpacked package; folders are keywords."""
    stamps = root / "usr" / "share" / "tuxpaint" / "stamps"
    for path in sorted(stamps.rglob("*.txt")):
        folders = path.relative_to(stamps).parts[:-1]
        picture = _picture(path)
        if picture is None or any(name in folders for name in _LEFT_OUT):
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        title = lines[0].strip(" .!") if lines else ""
        if title and "=" not in title:
            yield NamedPicture(SOURCE, picture, title, tuple(folders))


def _picture(path: Path) -> Path | None:
    """The picture beside a description."""
    for suffix in (".png", ".svg"):
        if path.with_suffix(suffix).exists():
            return path.with_suffix(suffix)
    return None
