"""Small copies of pictures, as data URIs within a report.

Depends on picture files. Invariant: a picture is read once, no picture is larger than the rows'
bounds allow, and one that cannot be read is none.
"""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from PIL import Image

from model_store.families.images import FORMATS, MAX_FILE_BYTES, MAX_PIXELS

MAX_THUMBNAILS = 300
SIDE = 144
"""Pixels of the longer side: twice of what is shown, for dense screens."""


class Thumbnails:
    """Makes thumbnails of the first `MAX_THUMBNAILS` pictures."""

    def __init__(self) -> None:
        self._made: dict[Path, str | None] = {}

    def uri(self, path: Path) -> str | None:
        """A picture as a data URI; None where it cannot be read, or where there are too many."""
        if path not in self._made:
            if len(self._made) >= MAX_THUMBNAILS:
                return None
            self._made[path] = _uri(path)
        return self._made[path]


def _uri(path: Path) -> str | None:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return None
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (SIDE, SIDE))
            small = _on_white(image)
    except Exception:  # Pillow raises exceptions of any class for broken files
        return None

    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    written = io.BytesIO()
    small.save(written, "WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode()


def _on_white(image: Image.Image) -> Image.Image:
    """The picture in colours alone; what is transparent is white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return image.convert("RGB")
