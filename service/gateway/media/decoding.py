"""What a child process does to image bytes: decode and resize.

Knows Pillow alone. Invariant: every failure is one of this service's own errors; no Pillow
exception or text leaves; and of what a PNG holds beside its pixels, no more is unpacked than two
short texts that may say how it is turned.
"""

from __future__ import annotations

import math
import resource
import struct
import time
import warnings
from collections.abc import Sequence
from io import BytesIO

from PIL import ExifTags, Image

from service.errors import ImageTooLarge, InvalidImage, RerankError
from service.gateway.media.headers import PNG

FORMATS = ("PNG", "JPEG", "WEBP")
DECODER_MEMORY_BYTES = 2**30
_KEPT_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf")
)
_KEPT_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Texts that may say how a picture is turned, and nothing else that this service wants to know."""
_LONGEST_TEXT = 64 * 2**10
MAX_CHUNKS = 50_000
"""Of a PNG. Encoders write one for each 8 KiB or more; each takes a chunk's reader as long as a
hundred bytes."""

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


def decode_all(
    batch: Sequence[bytes], cell: int, min_pixels: int, max_pixels: int
) -> tuple[list[tuple[int, int, bytes] | RerankError], float]:
    """Each image of a batch, or why it cannot be read; and the CPU seconds it took.

    Runs in a child process, whose address space it bounds.
    """
    resource.setrlimit(resource.RLIMIT_AS, (DECODER_MEMORY_BYTES, DECODER_MEMORY_BYTES))
    begun = time.process_time()
    decoded: list[tuple[int, int, bytes] | RerankError] = []
    for data in batch:
        try:
            decoded.append(_decode(data, cell, min_pixels, max_pixels))
        except RerankError as error:
            decoded.append(error)
    return decoded, time.process_time() - begun


def _decode(data: bytes, cell: int, min_pixels: int, max_pixels: int) -> tuple[int, int, bytes]:
    """(width, height, RGB rows) of the first frame, upright, on white where it was transparent,
    resized for the model."""
    with _opened(_without_ballast(data)) as image:
        try:
            upright = _rgb(_turned(image))
            target = smart_resize(
                *upright.size, cell=cell, min_pixels=min_pixels, max_pixels=max_pixels
            )
            resized = (
                upright
                if upright.size == target
                else upright.resize(target, Image.Resampling.BICUBIC)
            )
            return *target, resized.tobytes()
        except MemoryError:
            raise ImageTooLarge from None
        # a broken file leads Pillow to exceptions of any kind, struct.error among them
        except Exception:
            raise InvalidImage from None


def smart_resize(
    width: int, height: int, *, cell: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The size Qwen-VL's processor gives an image: sides multiples of `cell`, area within the
    bounds, aspect about kept."""
    wide, high = round(width / cell) * cell, round(height / cell) * cell
    if wide * high > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        wide, high = (
            max(cell, math.floor(side / shrink / cell) * cell) for side in (width, height)
        )
    elif wide * high < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        wide, high = (math.ceil(side * grow / cell) * cell for side in (width, height))
    return wide, high


def _without_ballast(data: bytes) -> bytes:
    """A PNG without profiles, and without texts that say nothing of how it is turned: Pillow would
    unpack each of them."""
    if not data.startswith(PNG):
        return data
    kept = [PNG]
    texts: set[bytes] = set()
    place = len(PNG)
    for _ in range(MAX_CHUNKS):
        head = data[place : place + 8]
        if len(head) < 8:
            return b"".join(kept)
        length, kind = struct.unpack(">I4s", head)
        end = place + 12 + length
        if kind in _KEPT_CHUNKS or _says_how_it_is_turned(kind, data[place + 8 : end - 4], texts):
            kept.append(data[place:end])
        place = end
    raise InvalidImage


def _says_how_it_is_turned(kind: bytes, content: bytes, met: set[bytes]) -> bool:
    """Whether a chunk is a short text that may say so, the first one of its keyword."""
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or len(content) > _LONGEST_TEXT:
        return False
    keyword = next((each for each in _KEPT_TEXTS if content.startswith(each)), None)
    if keyword is None or keyword in met:
        return False
    met.add(keyword)
    return True


def _opened(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings(action="ignore"):
            return Image.open(BytesIO(data), formats=FORMATS)
    except Exception:
        raise InvalidImage from None


def _turned(image: Image.Image) -> Image.Image:
    """Upright by its EXIF. Pillow's own way writes the EXIF anew, and so refuses photos whose other
    entries are damaged."""
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
