"""Small pictures, encoded in the ways that people send them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

Size = tuple[int, int]
Claim = Callable[[int, int], bytes]


def picture(size: Size = (48, 40)) -> Image.Image:
    """A picture that looks different from every side."""
    shade = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", [shade, shade.transpose(Image.Transpose.ROTATE_180), Image.radial_gradient("L").resize(size)])


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def bare(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{bare(data)}"


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x011A] = 72.5
    tags[0x8769] = {0x829A: (1, 3), 0x9003: "2020:01:01 00:00:00"}
    return tags


def with_unwritable_exif() -> bytes:
    """A JPEG whose EXIF says to turn it, and holds a fraction where a whole number belongs."""
    return encode(picture(), "JPEG", exif=exif(6)).replace(struct.pack(">HH", 0x011A, 5), struct.pack(">HH", 0x0103, 5))


def animated(kind: str) -> bytes:
    """Red, then blue."""
    return encode(Image.new("RGB", (32, 32), "red"), kind, save_all=True, append_images=[Image.new("RGB", (32, 32), "blue")])


def png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">II", width, height) + encode(picture())[24:29]
    return encode(picture())[:12] + header + struct.pack(">I", zlib.crc32(header)) + encode(picture())[33:]


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(encode(picture(), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_that_claims(width: int, height: int) -> bytes:
    data = bytearray(animated("WEBP"))
    start = data.index(b"VP8X") + 12
    data[start : start + 6] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return bytes(data)


PICTURES = {
    "png": encode(picture()),
    "png with exif": encode(picture(), exif=exif(6)),
    "palette": encode(picture().quantize(16), transparency=3),
    "grey 16 bit": encode(picture().convert("L").convert("I;16")),
    "one bit": encode(picture().convert("1")),
    "apng": animated("PNG"),
    "jpeg": encode(picture(), "JPEG"),
    "progressive": encode(picture(), "JPEG", progressive=True),
    "jpeg with exif": encode(picture(), "JPEG", exif=exif(6)),
    "cmyk": encode(picture().convert("CMYK"), "JPEG"),
    "webp": encode(picture(), "WEBP"),
    "lossless": encode(picture(), "WEBP", lossless=True, exif=exif(6)),
    "animated": animated("WEBP"),
}
"""Pictures that are fine, by what is special about them."""
