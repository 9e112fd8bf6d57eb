"""The playground's page and its files: markup, style, scripts, pictures of the samples, data.

Depends on static pages alone. Invariant: a file is served by its name, wherever it lies in this
folder, so that no two files have the same name.
"""

from __future__ import annotations

from pathlib import Path

from service.web.static_files import MEDIA_TYPES, StaticPage

PATH = "/playground"
_FOLDER = Path(__file__).parent
_INDEX = _FOLDER / "index.html"


def playground_page() -> StaticPage:
    """The page at `/playground`. It has no data of users, and needs no API key."""
    files: dict[str, Path] = {}
    for file in sorted(_FOLDER.rglob("*")):
        if file.suffix in MEDIA_TYPES and file != _INDEX:
            assert file.name not in files, f"two files of the playground are named {file.name}"
            files[file.name] = file
    return StaticPage(PATH, _INDEX, files)
