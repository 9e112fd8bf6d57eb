"""An encoded image's header: its size, and how often its decoder goes over its pixels.

The module reads PNG, JPEG and WebP by itself and unpacks nothing: profiles, texts and EXIF are
stepped over by their lengths, in a number of steps that is bounded. Invariant: whatever it is
given, it takes less than a millisecond or two a megabyte, and it raises `InvalidImage` or gives
positive sides.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from service.errors import InvalidImage

MAX_PIECES = 1_000
"""Segments or chunks before a picture's first pixel. Cameras write dozens; millions fit into a
file, and Pillow reads each."""
MAX_SCANS = 100
"""Of a progressive JPEG. Encoders write about ten; a few bytes make one more, and each goes over
all pixels again."""
USUAL_SCANS = 10

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
WEBP_HEAD = 30

_START_OF_SCAN = 0xDA
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x00, 0x01, 0xC8, 0xFF, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Header:
    """`size` is (width, height) in pixels; `passes` is how often a decoder goes over them, as a
    multiple of what is usual."""

    size: Size
    passes: int = 1


def read_header(data: bytes) -> Header:
    """The header of an encoded image; raises `InvalidImage` for anything but PNG, JPEG and WebP of
    a usual make."""
    passes = 1
    try:
        if data.startswith(PNG):
            size = _png(data)
        elif data.startswith(JPEG):
            size = _jpeg(data)
            passes = _scans(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            size = webp_size(data[:WEBP_HEAD])
        else:
            size = None
    except struct.error:
        size = None
    if size is None or min(size) < 1:
        raise InvalidImage
    return Header(size, passes)


def webp_size(head: bytes) -> Size | None:
    """(width, height) from the first `WEBP_HEAD` bytes of a WebP; raises `struct.error` where they
    are fewer."""
    kind = head[12:16]
    if len(head) < WEBP_HEAD and kind != b"VP8L":
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _png(data: bytes) -> Size | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    place = len(PNG)
    for _ in range(MAX_PIECES + 1):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            return width, height
        place += 12 + length
    return None


def _jpeg(data: bytes) -> Size | None:
    """The size that the last frame before the first scan says. Bytes that belong to no segment
    count as pieces, too."""
    size: Size | None = None
    place = len(JPEG)
    for _ in range(MAX_PIECES + 1):
        fill, marker = struct.unpack_from(">BB", data, place)
        if fill != 0xFF or marker == 0xFF:
            place += 1
            continue
        if marker == _START_OF_SCAN:
            return size
        if marker in START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, place + 5)
            size = width, height
        place += (
            2 if marker in _WITHOUT_LENGTH else 2 + struct.unpack_from(">H", data, place + 2)[0]
        )
    return None


def _scans(data: bytes) -> int:
    """How often a decoder goes over all pixels, as a multiple of what is usual; raises
    `InvalidImage` where it is too often."""
    scans = data.count(bytes((0xFF, _START_OF_SCAN)))
    if scans > MAX_SCANS:
        raise InvalidImage
    return max(1, -(-scans // USUAL_SCANS))
