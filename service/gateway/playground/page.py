"""The playground's page and its files: markup, style, scripts, data, and pictures of the samples.

Depends on static pages alone. Invariant: a file is served by its name, wherever it lies in this
folder, so no two files have the same name.
"""

from __future__ import annotations

from pathlib import Path

from service.web.static_files import StaticPage

PATH = "/playground"
_INDEX = Path(__file__).with_name("index.html")
_SUFFIXES = {".css", ".js", ".json", ".png", ".svg"}


def playground_page() -> StaticPage:
    """The page at `/playground`. It holds nothing of a caller, and requires no API key."""
    files: dict[str, Path] = {}
    for file in sorted(_INDEX.parent.rglob("*")):
        if file.suffix in _SUFFIXES:
            assert file.name not in files, f"two files of the playground are named {file.name}"
            files[file.name] = file
    return StaticPage(PATH, _INDEX, files)
