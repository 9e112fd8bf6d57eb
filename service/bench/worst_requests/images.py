"""Images that cost a decoder as much as possible for few bytes.

Depends on image formats alone. Invariant: an image depends on its number alone, and images of
different numbers differ.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

SIDE = 4_000
"""The side of a picture with as many pixels as the default limits allow."""
SCANS = 90
EXIF_ENTRIES = 5_000


def animated_webp(number: int) -> bytes:
    """About a hundred bytes of one colour on a canvas of the largest size."""
    colour = (number % 256, number // 256 % 256, 7)
    pixel = _encoded(Image.new("RGB", (2, 2), colour), "WEBP", lossless=True)[12:]
    frame = struct.pack("<I", 16 + len(pixel)) + bytes(6) + b"\x01\0\0\x01\0\0" + bytes(4) + pixel
    canvas = struct.pack("<I", SIDE - 1)[:3] * 2

    body = b"WEBP"
    body += b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas
    body += b"ANIM" + struct.pack("<I", 6) + b"\xff" * 4 + b"\0\0"
    body += b"ANMF" + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_with_profiles(number: int) -> bytes:
    """A megabyte of colour profiles that unpack to a thousand times as much."""
    picture = _encoded(Image.new("RGB", (64, 64), (number % 256, number // 256, 0)), "PNG")
    content = b"iCCPp\0\0" + zlib.compress(bytes(2**20 - 100), 9)
    profile = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return picture[:33] + profile * 900 + picture[33:]


def jpeg_with_scans(number: int) -> bytes:
    """A grey progressive JPEG of the largest size whose scans visit every block and change none."""
    blocks = (SIDE // 8) ** 2
    head = _segment(0xFE, b"%d" % number)
    head += _segment(0xDB, b"\0" + b"\1" * 64)
    head += _segment(0xC2, struct.pack(">BHHB", 8, SIDE, SIDE, 1) + b"\1\x11\0")
    head += _segment(0xC4, b"\x00" + b"\1" + b"\0" * 15 + b"\x00")
    head += _segment(0xC4, b"\x10" + b"\1" + b"\0" * 15 + b"\xe0")
    head += _segment(0xDA, b"\1\1\0\0\0\0") + b"\0" * (blocks // 8 + 1)
    scan = _segment(0xDA, b"\1\1\0\1\x3f\0") + _empty_scan(blocks)
    return b"\xff\xd8" + head + scan * SCANS + b"\xff\xd9"


def jpeg_with_exif(number: int) -> bytes:
    """A small JPEG whose EXIF has thousands of entries, each of which points at all of it."""
    entry = struct.pack(">HHII", 0x9286, 7, 60_000, 8)
    tiff = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", EXIF_ENTRIES) + entry * EXIF_ENTRIES
    picture = _encoded(Image.new("RGB", (64, 64), (number % 256, number // 256, 0)), "JPEG")
    return picture[:2] + _segment(0xE1, b"Exif\0\0" + tiff) + picture[2:]


def largest_png(number: int) -> bytes:
    """A PNG of as many pixels as the limits allow, in few bytes."""
    return _encoded(Image.new("P", (SIDE, SIDE), number % 256), "PNG")


def _empty_scan(blocks: int) -> bytes:
    """The data of a scan that skips all blocks, in runs of end-of-band codes."""
    run = 2**15 - 1
    bits = f"0{run - 2**14:014b}" * (blocks // run + 1)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
