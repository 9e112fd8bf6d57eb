"""Images as a network receives them: the first frame, upright, RGB on white, resized to a grid of
cells.

The service and training both call this module, so that an image becomes the same pixels in both.
It imports Pillow and nothing else, because a gateway has neither numpy nor torch; a family passes
its bounds as parameters. Invariant: equal bytes and equal bounds give equal pixels.
"""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_FILE_BYTES = 10 * 2**20
MAX_PIXELS = 16_000_000
"""The service's default limit. It is checked against the header, so that a small file cannot
decode into a huge image."""
MAX_ASPECT = 200
"""The longer side divided by the shorter one. The `smart_resize` of `transformers` refuses more."""

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that sets an image upright, by its EXIF orientation."""


class PictureUnreadable(ValueError):
    """A file that cannot be used as an image; its text gives the reason without the file's name."""


def open_image(data: bytes) -> Image.Image:
    """Read the header of an encoded PNG, JPEG or WebP; raises any of Pillow's errors."""
    with warnings.catch_warnings(action="ignore"):
        return Image.open(BytesIO(data), formats=FORMATS)


def prepare(image: Image.Image, *, cell: int, min_pixels: int, max_pixels: int) -> Image.Image:
    """Decode an image into upright RGB and resize it; raises any of Pillow's errors."""
    upright = _to_rgb(_transposed(image))
    size = smart_resize(*upright.size, cell=cell, min_pixels=min_pixels, max_pixels=max_pixels)
    if upright.size == size:
        return upright
    return upright.resize(size, Image.Resampling.BICUBIC)


def smart_resize(
    width: int, height: int, *, cell: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(width, height) in multiples of `cell`, with an area within the bounds and about the same
    aspect ratio.

    It is the function of this name in the `transformers` package, with its arguments the other way
    round.
    """
    new_width = round(width / cell) * cell
    new_height = round(height / cell) * cell

    if new_width * new_height > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        new_width = max(cell, math.floor(width / scale / cell) * cell)
        new_height = max(cell, math.floor(height / scale / cell) * cell)
    elif new_width * new_height < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        new_width = math.ceil(width * scale / cell) * cell
        new_height = math.ceil(height * scale / cell) * cell
    return new_width, new_height


def picture_size(path: Path, *, cell: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) of the image that `load_picture` returns, computed from the file's header.

    Raises `PictureUnreadable`.
    """
    with _opened(_content(path)) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            width, height = height, width
        return smart_resize(width, height, cell=cell, min_pixels=min_pixels, max_pixels=max_pixels)


def load_picture(
    source: Path | bytes, *, cell: int, min_pixels: int, max_pixels: int
) -> Image.Image:
    """The first frame of a file, or of the bytes of one, as `prepare` gives it; raises
    `PictureUnreadable`."""
    data = source if isinstance(source, bytes) else _content(source)
    with _opened(data) as image:
        try:
            return prepare(image, cell=cell, min_pixels=min_pixels, max_pixels=max_pixels)
        except MemoryError:
            raise PictureUnreadable("there is not enough memory to decode it") from None
        # Pillow raises exceptions of any kind for a broken file, struct.error among them
        except Exception:
            raise PictureUnreadable("it is damaged or cut off") from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PictureUnreadable(f"it cannot be read ({error.strerror})") from None


def _opened(data: bytes) -> Image.Image:
    if len(data) > MAX_FILE_BYTES:
        raise PictureUnreadable(f"it is larger than {MAX_FILE_BYTES} bytes")

    try:
        image = open_image(data)
    except Exception:
        raise PictureUnreadable("it is no PNG, JPEG or WebP picture") from None

    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureUnreadable(f"it has {width} x {height} pixels, and {MAX_PIXELS} are allowed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureUnreadable(f"it is more than {MAX_ASPECT} times as long as wide")
    return image


def _transposed(image: Image.Image) -> Image.Image:
    """An image set upright by its EXIF orientation.

    `ImageOps.exif_transpose` also rewrites the EXIF block, and so fails for photos with a damaged
    entry in it.
    """
    transpose = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if transpose is None else image.transpose(transpose)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16-bit grey: `convert` would clip it instead of scaling it
        image = image.point(lambda level: level / 256).convert("L")

    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
