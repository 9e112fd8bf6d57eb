"""What is done to image bytes: read the header, and, in a child process, decode and resize.

Knows Pillow alone. Invariant: every failure is one of this service's own errors; no Pillow exception or text leaves.
"""

from __future__ import annotations

import math
import resource
import warnings
from collections.abc import Sequence
from io import BytesIO

from PIL import ExifTags, Image

from service.errors import ImageTooLarge, InvalidImage, RerankError

FORMATS = ("PNG", "JPEG", "WEBP")
DECODER_MEMORY_BYTES = 2**30
MAX_PIECES = 1_000
"""Segments or chunks before a picture's first pixel. Cameras write dozens; millions fit into a file, and Pillow reads each."""
MAX_SCANS = 100
"""Of a progressive JPEG. Encoders write about ten; a few bytes make one more, and each goes over all pixels again."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_START_OF_SCAN = 0xDA

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to set a picture upright, by its EXIF orientation."""

# Sizes are checked here, from the header, against the service's own limit.
Image.MAX_IMAGE_PIXELS = None


def size(data: bytes) -> tuple[int, int]:
    """(width, height) from the header; raises `InvalidImage` for anything but PNG, JPEG and WebP."""
    if _laborious(data):
        raise InvalidImage
    with _opened(data) as image:
        return image.size


def decode_all(batch: Sequence[bytes], cell: int, min_pixels: int, max_pixels: int) -> list[tuple[int, int, bytes] | RerankError]:
    """Each image of a batch, or why it cannot be read. Runs in a child process, whose address space it bounds."""
    resource.setrlimit(resource.RLIMIT_AS, (DECODER_MEMORY_BYTES, DECODER_MEMORY_BYTES))
    decoded: list[tuple[int, int, bytes] | RerankError] = []
    for data in batch:
        try:
            decoded.append(_decode(data, cell, min_pixels, max_pixels))
        except RerankError as error:
            decoded.append(error)
    return decoded


def _decode(data: bytes, cell: int, min_pixels: int, max_pixels: int) -> tuple[int, int, bytes]:
    """(width, height, RGB rows) of the first frame, upright, on white where it was transparent, resized for the model."""
    with _opened(data) as image:
        try:
            upright = _rgb(_turned(image))
            target = smart_resize(*upright.size, cell=cell, min_pixels=min_pixels, max_pixels=max_pixels)
            resized = upright if upright.size == target else upright.resize(target, Image.Resampling.BICUBIC)
            return *target, resized.tobytes()
        except MemoryError:
            raise ImageTooLarge from None
        except Exception:  # a broken file leads Pillow to exceptions of any kind, struct.error among them
            raise InvalidImage from None


def smart_resize(width: int, height: int, *, cell: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size Qwen-VL's processor gives an image: sides multiples of `cell`, area within the bounds, aspect about kept."""
    wide, high = round(width / cell) * cell, round(height / cell) * cell
    if wide * high > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        wide, high = (max(cell, math.floor(side / shrink / cell) * cell) for side in (width, height))
    elif wide * high < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        wide, high = (math.ceil(side * grow / cell) * cell for side in (width, height))
    return wide, high


def _laborious(data: bytes) -> bool:
    """Whether a picture is made of far more pieces than it needs, which cost their reader far more than their sender."""
    if data.startswith(_PNG):
        return _chunks_before_pixels(data) > MAX_PIECES
    if data.startswith(_JPEG):
        return data.count(bytes((0xFF, _START_OF_SCAN))) > MAX_SCANS or _segments_before_pixels(data) > MAX_PIECES
    return False


def _chunks_before_pixels(data: bytes) -> int:
    place, count = len(_PNG), 0
    while place < len(data) and data[place + 4 : place + 8] != b"IDAT" and count <= MAX_PIECES:
        place += 12 + int.from_bytes(data[place : place + 4])
        count += 1
    return count


def _segments_before_pixels(data: bytes) -> int:
    """Segments, and bytes that belong to none: those, too, are read one by one."""
    place, count = len(_JPEG), 0
    while place + 1 < len(data) and count <= MAX_PIECES:
        marker = data[place + 1] if data[place] == 0xFF else 0xFF
        if marker == _START_OF_SCAN:
            break
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4])
        count += 1
    return count


def _opened(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings(action="ignore"):
            return Image.open(BytesIO(data), formats=FORMATS)
    except Exception:
        raise InvalidImage from None


def _turned(image: Image.Image) -> Image.Image:
    """Upright by its EXIF. Pillow's own way writes the EXIF anew, and so refuses photos whose other entries are damaged."""
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16-bit grey: Pillow would clip it, not scale it
        image = image.point(lambda level: level / 256).convert("L")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def ready() -> None:
    """Do nothing, in a child process that has thereby loaded this module."""
