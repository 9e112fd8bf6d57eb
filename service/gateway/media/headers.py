"""Headers of encoded images: their size, and the number of passes that a decoder makes.

One reader for PNG, JPEG and WebP steps over profiles, texts and EXIF by their lengths and inflates
nothing. It reads from bytes, where it refuses what is wrong, or straight from base64, where a size
is only an estimate for admission. It depends on no image library. Invariant: the number of steps is
bounded, so a header takes less than a millisecond or two for each megabyte of the image; sides are
positive; `InvalidImage` is the only error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import InvalidImage
from service.gateway.media.data_urls import MAX_LABEL, decode

MAX_PIECES = 1_000
"""Segments or chunks before an image's first pixel. Cameras write dozens; millions fit into a file,
and Pillow reads each."""
MAX_BASE64_PIECES = 64
"""The same bound for a size that is read from base64, where each step decodes a few characters."""
MAX_SCANS = 100
"""Scans of a progressive JPEG. Encoders write about ten; a few bytes add one more, and each is
another pass of the decoder over all pixels."""
USUAL_SCANS = 10

PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x00, 0x01, 0xC8, 0xFF, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))

Size = tuple[int, int]
Read = Callable[[int, int], bytes]
"""Reads so many bytes at an offset of an image; raises `ValueError` where there are fewer."""


@dataclass(frozen=True, slots=True)
class Header:
    """`size` is (width, height) in pixels; `passes` is the number of times that a decoder goes over
    them, as a multiple of the usual."""

    size: Size
    passes: int = 1


def read_header(data: bytes) -> Header:
    """The header of an encoded image.

    Raises `InvalidImage` for another format, a damaged header, or one beyond the bounds.
    """

    def read(offset: int, count: int) -> bytes:
        found = data[offset : offset + count]
        if len(found) < count:
            raise ValueError
        return found

    size = _size(read, MAX_PIECES)
    if size is None:
        raise InvalidImage
    return Header(size, _passes(data) if data.startswith(_JPEG) else 1)


def size_in_base64(source: str) -> Size | None:
    """(width, height) of the image in a data URL or in bare base64.

    None where its header cannot be read, as in base64 with line breaks. Only the few characters
    that hold the header are decoded.
    """
    start = source.find(",", 0, MAX_LABEL) + 1

    def read(offset: int, count: int) -> bytes:
        first = offset // 3 * 4
        last = -(-(offset + count) // 3) * 4
        block = decode(source[start + first : start + last])
        found = block[offset % 3 : offset % 3 + count]
        if len(found) < count:
            raise ValueError
        return found

    return _size(read, MAX_BASE64_PIECES)


def _size(read: Read, max_pieces: int) -> Size | None:
    """(width, height) of an image; None for what is no image, or none within the bounds."""
    try:
        signature = read(0, 12)
        if signature.startswith(PNG):
            size = _png_size(read, max_pieces)
        elif signature.startswith(_JPEG):
            size = _jpeg_size(read, max_pieces)
        elif signature.startswith(b"RIFF") and signature.endswith(b"WEBP"):
            size = _webp_size(read)
        else:
            return None
    except ValueError:
        return None
    return size if size and min(size) > 0 else None


def _png_size(read: Read, max_pieces: int) -> Size | None:
    kind, width, height = struct.unpack(">4sII", read(12, 12))
    if kind != b"IHDR":
        return None

    offset = len(PNG)
    for _ in range(max_pieces + 1):
        length, kind = struct.unpack(">I4s", read(offset, 8))
        if kind == b"IDAT":
            return width, height
        offset += 12 + length
    return None


def _jpeg_size(read: Read, max_pieces: int) -> Size | None:
    """The size in the last frame header before the first scan.

    A byte that belongs to no segment counts as a piece.
    """
    size: Size | None = None
    offset = len(_JPEG)
    for _ in range(max_pieces + 1):
        prefix, marker, length = struct.unpack(">BBH", read(offset, 4))
        if prefix != 0xFF or marker == 0xFF:
            offset += 1
            continue
        if marker == _START_OF_SCAN:
            return size

        if marker in _START_OF_FRAME:
            height, width = struct.unpack(">HH", read(offset + 5, 4))
            size = width, height
        offset += 2 if marker in _WITHOUT_LENGTH else 2 + length
    return None


def _webp_size(read: Read) -> Size | None:
    kind = read(12, 4)
    if kind == b"VP8X":
        canvas = read(24, 6)
        return 1 + int.from_bytes(canvas[:3], "little"), 1 + int.from_bytes(canvas[3:], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(read(21, 4), "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", read(26, 4))
        return width & 0x3FFF, height & 0x3FFF
    return None


def _passes(data: bytes) -> int:
    """The number of times that a decoder goes over a JPEG's pixels, as a multiple of the usual.

    Raises `InvalidImage` above `MAX_SCANS`.
    """
    scans = data.count(bytes((0xFF, _START_OF_SCAN)))
    if scans > MAX_SCANS:
        raise InvalidImage
    return max(1, -(-scans // USUAL_SCANS))
