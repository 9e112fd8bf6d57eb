"""Pictures in a terminal: two pixels a character, by half blocks in 24-bit colours.

Depends on Pillow and rich. Invariant: a picture that cannot be decoded, or is too large, has no
thumbnail, and nothing fails for it.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from rich.segment import Segment, Segments
from rich.style import Style

from service.cli.documents.items import Document

COLUMNS, LINES = 12, 6
"""The size of a thumbnail in characters."""
_MAX_PIXELS = 40_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")
_UPPER_HALF = "▀"
_PAPER = (255, 255, 255)
"""The colour behind transparent pixels."""


def thumbnail(document: Document) -> Segments | None:
    """A document's picture as lines of half blocks; None without one that can be shown."""
    source = _source(document)
    if source is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files; the service judges them
            with Image.open(source, formats=_FORMATS) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    return None
                return half_blocks(picture)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, MemoryError):
        return None


def half_blocks(picture: Image.Image) -> Segments:
    """A picture as characters: the foreground is the upper pixel, the background the lower one."""
    whole = picture.convert("RGBA")
    whole.thumbnail((COLUMNS, 2 * LINES))
    small = Image.new("RGB", whole.size, _PAPER)
    small.paste(whole, mask=whole.getchannel("A"))

    segments: list[Segment] = []
    for top in range(0, small.height, 2):
        for left in range(small.width):
            upper = _hex(small.getpixel((left, top)))
            below = small.getpixel((left, top + 1)) if top + 1 < small.height else _PAPER
            segments.append(Segment(_UPPER_HALF, Style(color=upper, bgcolor=_hex(below))))
        segments.append(Segment.line())
    return Segments(segments[:-1])


def _source(document: Document) -> Path | BytesIO | None:
    """The bytes of a document's picture, if it has one that needs no request."""
    if document.picture is not None:
        return document.picture
    fields: Any = document.fields
    image = fields.get("image") if isinstance(fields, dict) else None
    if not isinstance(image, str) or "://" in image[:16]:
        return None
    try:
        return BytesIO(base64.b64decode(image.rpartition(",")[2]))
    except (binascii.Error, ValueError):
        return None


def _hex(pixel: Any) -> str:
    red, green, blue = pixel
    return f"#{red:02x}{green:02x}{blue:02x}"
