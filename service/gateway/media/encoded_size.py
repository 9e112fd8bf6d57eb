"""An encoded image's size, from the few bytes of its base64 that say it.

For guessing what a request costs before anything is decoded: what is let in is measured again, by
`media`. Knows PNG, JPEG and WebP headers. Invariant: whatever it is given, it raises nothing and
decodes a bounded number of bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from service.gateway.media.data_urls import MAX_LABEL, decode
from service.gateway.media.headers import JPEG, PNG, START_OF_FRAME, WEBP_HEAD, Size, webp_size

_MAX_SEGMENTS = 64


def image_size(source: str) -> Size | None:
    """(width, height) of a data URL's or bare base64's image as its header says; None where that is
    not easily seen."""
    start = source.find(",", 0, MAX_LABEL) + 1

    def read(offset: int, count: int) -> bytes:
        """`count` bytes of the image; raises `ValueError` where they are not there, or the base64
        has gaps."""
        first, last = offset // 3 * 4, -(-(offset + count) // 3) * 4
        found = decode(source[start + first : start + last])[offset % 3 : offset % 3 + count]
        if len(found) < count:
            raise ValueError
        return found

    try:
        size = _read_size(read)
    except ValueError:
        return None
    return size if size and min(size) > 0 else None


def _read_size(read: Callable[[int, int], bytes]) -> Size | None:
    head = read(0, WEBP_HEAD)
    if head.startswith(PNG):
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return webp_size(head)
    return _jpeg(read) if head.startswith(JPEG) else None


def _jpeg(read: Callable[[int, int], bytes]) -> Size | None:
    """Segments are stepped over by their lengths until the one that begins the frame."""
    place = 2
    for _ in range(_MAX_SEGMENTS):
        fill, marker, length = struct.unpack(">BBH", read(place, 4))
        if fill != 0xFF:
            return None
        if marker in START_OF_FRAME:
            height, width = struct.unpack(">HH", read(place + 5, 4))
            return width, height
        place += 1 if marker == 0xFF else 2 + length
    return None
