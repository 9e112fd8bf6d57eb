"""The dearest requests that are within a service's limits, by shape of body and picture.

The module knows the public request and the formats of images, no server. A shape's size grows with
a number from 1 to 1,000, at which it is as large as the default limits let it be. Invariant: a
shape is the same bytes each time, and its documents are all different.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

from PIL import Image

LARGEST = 1_000
"""The size of a shape at the limits: documents of a request."""
BODY_BYTES = 60 * 2**20
"""What a body has at most: a little less than the default limit."""
TEXT_CHARACTERS = 100_000
SIDE = 4_000
"""Of a picture with as many pixels as may be."""
SCANS = 90
_LABEL = "data:image/png;base64,"
EXIF_ENTRIES = 5_000
DEADLINE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Shape:
    """A request's body by its size; `says` is what is special about it, in a few words."""

    name: str
    says: str
    body: Callable[[int], bytes]


def _json(documents: list[Any], **fields: Any) -> bytes:
    body = {
        "query": "q",
        "documents": documents,
        "timeout_ms": DEADLINE_MS,
        "on_error": "skip",
        "cache": "bypass",
    }
    return json.dumps(body | fields, ensure_ascii=False).encode()


def _nested(size: int) -> bytes:
    return _with_ignored(b"[" + b",".join([b"[[]]"] * (BODY_BYTES * size // LARGEST // 5)) + b"]")


def _keys(size: int) -> bytes:
    count = BODY_BYTES * size // LARGEST // 14
    return _with_ignored(b"{" + b",".join(b'"%09d":1' % number for number in range(count)) + b"}")


def _with_ignored(value: bytes) -> bytes:
    return b'{"query": "q", "documents": ["a"], "cache": "bypass", "ignored": ' + value + b"}"


def _texts(piece: str, size: int) -> bytes:
    """Documents of the longest text, as many as fit."""
    largest = len(piece.encode()) / len(piece) * TEXT_CHARACTERS
    count = min(size, int(BODY_BYTES / largest))
    whole = piece * (TEXT_CHARACTERS // len(piece))
    return _json([f"{number} {whole}"[:TEXT_CHARACTERS] for number in range(count)])


def _instruction(size: int) -> bytes:
    return _json([f"document {number}" for number in range(size)], instruction="judge " * 2_600)


def _pictures(make: Callable[[int], bytes], size: int, *, label: str = "") -> bytes:
    """Documents of one picture each, as many as fit."""
    documents: list[dict[str, str]] = []
    room = BODY_BYTES * size // LARGEST
    for number in range(size):
        encoded = label + base64.b64encode(make(number)).decode()
        room -= len(encoded) + 16
        if documents and room < 0:
            break
        documents.append({"image": encoded})
    return _json(documents)


def _webp(number: int) -> bytes:
    """A hundred bytes or so of one colour on a canvas of the largest size."""
    dot = _saved(
        Image.new("RGB", (2, 2), (number % 256, number // 256 % 256, 7)), "WEBP", lossless=True
    )
    frame = (
        b"ANMF"
        + struct.pack("<I", 16 + len(dot) - 12)
        + bytes(6)
        + b"\x01\0\0\x01\0\0"
        + bytes(4)
        + dot[12:]
    )
    canvas = struct.pack("<I", SIDE - 1)[:3] * 2
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas
    animation = b"ANIM" + struct.pack("<I", 6) + b"\xff" * 4 + b"\0\0"
    body = b"WEBP" + extended + animation + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _png_of_profiles(number: int) -> bytes:
    """A megabyte of colour profiles that unpack to a thousand times as much."""
    picture = _saved(Image.new("RGB", (64, 64), (number % 256, number // 256, 0)), "PNG")
    content = b"iCCPp\0\0" + zlib.compress(bytes(2**20 - 100), 9)
    profile = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return picture[:33] + profile * 900 + picture[33:]


def _jpeg_of_scans(number: int) -> bytes:
    """A grey progressive JPEG of the largest size whose scans go over every block and say nothing
    about it."""
    blocks = (SIDE // 8) ** 2
    runs = [2**15 - 1] * (blocks // (2**15 - 1) + 1)
    bits = "".join(f"0{run - 2**14:014b}" for run in runs)
    bits += "1" * (-len(bits) % 8)
    nothing = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    head = (
        _segment(0xFE, b"%d" % number),
        _segment(0xDB, b"\0" + b"\1" * 64),
        _segment(0xC2, struct.pack(">BHHB", 8, SIDE, SIDE, 1) + b"\1\x11\0"),
        _segment(0xC4, b"\x00" + b"\1" + b"\0" * 15 + b"\x00"),
        _segment(0xC4, b"\x10" + b"\1" + b"\0" * 15 + b"\xe0"),
        _segment(0xDA, b"\1\1\0\0\0\0") + b"\0" * (blocks // 8 + 1),
    )
    return (
        b"\xff\xd8"
        + b"".join(head)
        + (_segment(0xDA, b"\1\1\0\1\x3f\0") + nothing) * SCANS
        + b"\xff\xd9"
    )


def _jpeg_with_exif(number: int) -> bytes:
    """A small JPEG whose EXIF has thousands of entries, each of which points at all of it."""
    entry = struct.pack(">HHII", 0x9286, 7, 60_000, 8)
    tiff = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", EXIF_ENTRIES) + entry * EXIF_ENTRIES
    picture = _saved(Image.new("RGB", (64, 64), (number % 256, number // 256, 0)), "JPEG")
    return picture[:2] + _segment(0xE1, b"Exif\0\0" + tiff) + picture[2:]


def _largest_picture(number: int) -> bytes:
    """A PNG of as many pixels as may be, in few bytes."""
    return _saved(Image.new("P", (SIDE, SIDE), number % 256), "PNG")


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SHAPES = (
    Shape("nested", "nested lists in a field that is ignored", _nested),
    Shape("keys", "many keys in a field that is ignored", _keys),
    Shape(
        "english",
        "the longest texts, English",
        partial(_texts, "the quick brown fox jumps over a lazy dog "),
    ),
    Shape(
        "chinese",
        "the longest texts, Chinese",
        partial(_texts, "\u6c34\u706b\u98a8\u96f7\u5c71\u6ca2\u5929\u5730"),
    ),
    Shape(
        "rare",
        "the longest texts, Egyptian hieroglyphs",
        partial(_texts, "\U00013000\U00013080\U00013100\U00013180"),
    ),
    Shape("instruction", "a long instruction", _instruction),
    Shape("webp", "pictures of 16 megapixels in a hundred bytes", partial(_pictures, _webp)),
    Shape(
        "png",
        "pictures of 16 megapixels as PNG, in data URLs",
        partial(_pictures, _largest_picture, label=_LABEL),
    ),
    Shape(
        "profiles",
        "colour profiles that unpack to a thousand times as much",
        partial(_pictures, _png_of_profiles),
    ),
    Shape("scans", "JPEGs of 16 megapixels and 90 scans", partial(_pictures, _jpeg_of_scans)),
    Shape("exif", "EXIF of thousands of entries", partial(_pictures, _jpeg_with_exif)),
)
