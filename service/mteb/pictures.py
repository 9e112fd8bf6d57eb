"""Images of mteb's data as the service reads them: the bytes that are stored, or PNG.

Depends on Pillow and datasets, not on rows. Invariant: no pixel changes, but where PNG does not
have the image's colours (such as CMYK), which become RGB.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import datasets
from PIL import Image, UnidentifiedImageError

_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
_FAST = 1
"""The level of compression of a PNG that is sent once."""


def encoded(image: Any) -> bytes | None:
    """An image as PNG, JPEG or WebP; None for no image.

    `image` is Pillow's, or `bytes` and `path` as datasets stores them. Stored bytes of those three
    formats are kept. Bytes that are no image are kept, too, so that the service refuses them.
    """
    if image is None or isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return _png(image)

    content: bytes | None = image["bytes"]
    if content is not None and _is_read_by_the_service(content):
        return content
    try:
        decoded = datasets.Image().decode_example(image)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        if content is None:
            raise
        return content
    return _png(decoded)


def _is_read_by_the_service(content: bytes) -> bool:
    """True for bytes that begin as PNG, JPEG or WebP do."""
    if content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return True
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def _png(image: Image.Image) -> bytes:
    kept = image if image.mode in _PNG_MODES else image.convert("RGB")
    written = BytesIO()
    kept.save(written, "PNG", compress_level=_FAST)
    return written.getvalue()
