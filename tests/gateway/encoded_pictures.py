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
    return Image.merge(
        "RGB",
        [
            shade,
            shade.transpose(Image.Transpose.ROTATE_180),
            Image.radial_gradient("L").resize(size),
        ],
    )


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
    """A JPEG with an orientation in its EXIF, and a fraction where a whole number belongs."""
    return encode(picture(), "JPEG", exif=exif(6)).replace(
        struct.pack(">HH", 0x011A, 5), struct.pack(">HH", 0x0103, 5)
    )


def animated(kind: str) -> bytes:
    """Red, then blue."""
    return encode(
        Image.new("RGB", (32, 32), "red"),
        kind,
        save_all=True,
        append_images=[Image.new("RGB", (32, 32), "blue")],
    )


def png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">II", width, height) + encode(picture())[24:29]
    return (
        encode(picture())[:12]
        + header
        + struct.pack(">I", zlib.crc32(header))
        + encode(picture())[33:]
    )


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


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes) -> bytes:
    """A PNG with these chunks before its pixels."""
    data = encode(picture())
    return data[:33] + b"".join(chunks) + data[33:]


def png_of_profiles(count: int) -> bytes:
    """A PNG with so many colour profiles, each a kilobyte that unpacks to a megabyte."""
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**20 - 100), 9))
    return png_with(*[profile] * count)


def webp_of_one_colour(number: int, side: int = 4_000) -> bytes:
    """A hundred bytes or so that decode to a canvas of `side` squared, a different file for each
    number."""
    dot = encode(
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
    frame += b"\0" * (len(frame) % 2)
    canvas = struct.pack("<I", side - 1)[:3] * 2
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas
    animation = b"ANIM" + struct.pack("<I", 6) + b"\xff" * 4 + b"\0\0"
    body = b"WEBP" + extended + animation + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_with(segments: bytes) -> bytes:
    """A JPEG that begins with these bytes."""
    data = encode(picture(), "JPEG")
    return data[:2] + segments + data[2:]


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A grey progressive JPEG of `side`, a multiple of 8, whose scans go over every block and say
    nothing about it."""
    blocks = (side // 8) ** 2
    runs = [2**15 - 1] * (blocks // (2**15 - 1) + 1)  # the last run is longer than needed
    bits = "".join(f"0{run - 2**14:014b}" for run in runs)
    bits += "1" * (-len(bits) % 8)
    nothing = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    head = (
        _segment(0xDB, b"\0" + b"\1" * 64),
        _segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
        _segment(0xC4, b"\x00" + b"\1" + b"\0" * 15 + b"\x00"),  # one code: no difference
        _segment(
            0xC4, b"\x10" + b"\1" + b"\0" * 15 + b"\xe0"
        ),  # one code: a run of 2^14 empty blocks, and as many more as its bits add
        _segment(0xDA, b"\1\1\0\0\0\0") + b"\0" * (blocks // 8 + 1),
    )
    return (
        b"\xff\xd8"
        + b"".join(head)
        + (_segment(0xDA, b"\1\1\0\1\x3f\0") + nothing) * scans
        + b"\xff\xd9"
    )


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
    "grey with transparency": encode(picture().convert("LA")),
    "exif of garbage": jpeg_with(
        _segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(256)))
    ),
    "png exif of garbage": png_with(chunk(b"eXIf", b"II*\0" + bytes(range(256)))),
    "profile of garbage": png_with(chunk(b"iCCP", b"x\0\0garbage")),
    "several pictures in one": encode(picture(), "MPO", save_all=True, append_images=[picture()]),
    "and a web page": encode(picture()) + b"<html><script>alert(1)</script></html>",
    "and an archive": encode(picture(), "JPEG")
    + b"PK\x03\x04"
    + bytes(64)
    + b"PK\x05\x06"
    + bytes(18),
    "as many scans as are fine": jpeg_of_scans(64, 90),
}
"""Pictures that are fine, by what is special about them."""


REFUSED = {
    **{
        kind.lower(): encode(picture(), kind)
        for kind in ("GIF", "TIFF", "BMP", "PDF", "EPS", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS")
    },
    "bilevel": encode(picture().convert("1"), "XBM"),
    "jpeg 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64),
    "jpeg 2000 stream": b"\xff\x4f\xff\x51" + bytes(64),
    "fits": b"SIMPLE  =                    T".ljust(80)
    + b"BITPIX  =                    8".ljust(80)
    + b"END".ljust(2720),
    "psd": b"8BPS\0\1"
    + bytes(6)
    + b"\0\3"
    + struct.pack(">II", 40, 48)
    + b"\0\x08\0\3"
    + bytes(64),
    "svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(64),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(64),
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(64),
    "a page, then a png": b"<html>" + encode(picture()),
    "gif, then a jpeg": b"GIF89a" + encode(picture(), "JPEG"),
    "postscript, then a png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n"
    + encode(picture()),
}
"""Pictures of other formats, some with a good one behind."""
