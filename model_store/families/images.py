"""Picture files as the network sees them: upright, RGB on white, resized as the service resizes
what it is sent.

Knows Pillow and the bounds of a file, no patches and no prompts. Invariant: for equal bytes and
equal bounds, the pixels are those the service gives its worker (`service.gateway.media.decoding`,
which must not import this half; a test holds the two equal).
"""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_FILE_BYTES = 10 * 2**20
MAX_PIXELS = 16_000_000
"""What the service takes; pixels are read from the header, so that a small file cannot become a
huge picture."""
MAX_ASPECT = 200
"""Qwen-VL's processor refuses what is longer than that for its width."""

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


class PictureUnreadable(ValueError):
    """A file that cannot be taken as a picture; its text says why, without the file's name."""


def picture_size(path: Path, *, cell: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) that a file will have for the network, from its header alone; raises
    `PictureUnreadable`."""
    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        width, height = reversed(image.size) if turned else image.size
        return smart_resize(width, height, cell=cell, min_pixels=min_pixels, max_pixels=max_pixels)


def load_picture(
    path: Path, *, cell: int, min_pixels: int, max_pixels: int
) -> npt.NDArray[np.uint8]:
    """A file's first frame as `[height, width, 3]` bytes, sides multiples of `cell`; raises
    `PictureUnreadable`."""
    with _opened(path) as image:
        try:
            upright = _rgb(_turned(image))
        except MemoryError:
            raise PictureUnreadable("there is not enough memory to decode it") from None
        # a broken file leads Pillow to exceptions of any kind, struct.error among them
        except Exception:
            raise PictureUnreadable("it is damaged or cut off") from None
    target = smart_resize(*upright.size, cell=cell, min_pixels=min_pixels, max_pixels=max_pixels)
    return np.asarray(
        upright if upright.size == target else upright.resize(target, Image.Resampling.BICUBIC)
    )


def smart_resize(
    width: int, height: int, *, cell: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The size Qwen-VL's processor gives a picture: sides multiples of `cell`, area within the
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


def _opened(path: Path) -> Image.Image:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PictureUnreadable(f"it cannot be read ({error.strerror})") from None
    if len(data) > MAX_FILE_BYTES:
        raise PictureUnreadable(f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(BytesIO(data), formats=FORMATS)
    except Exception:
        raise PictureUnreadable("it is no PNG, JPEG or WebP picture") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureUnreadable(f"it has {width} x {height} pixels, and {MAX_PIXELS} are allowed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureUnreadable(f"it is more than {MAX_ASPECT} times as long as wide")
    return image


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
