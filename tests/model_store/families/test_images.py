"""Image files become the pixels of transformers' processor, or are refused with a reason."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as reference

from model_store.families.images import (
    MAX_FILE_BYTES,
    PictureUnreadable,
    load_picture,
    picture_size,
    smart_resize,
)

CELL = 28
BOUNDS = {"cell": CELL, "min_pixels": 16 * 784, "max_pixels": 64 * 784}
SHIPPED = sorted((Path(__file__).parents[2] / "pictures").glob("*.png"))


def noise(mode: str, width: int, height: int) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(7).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def encoded(picture: Image.Image, form: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    picture.save(file, form, exif=exif)
    return file.getvalue()


DRAWN = {
    "grey.png": encoded(noise("L", 90, 50), "PNG"),
    "clear.png": encoded(noise("RGBA", 61, 200), "PNG"),
    "photo.jpg": encoded(noise("RGB", 640, 427), "JPEG"),
    "lying.jpg": encoded(noise("RGB", 300, 200), "JPEG", orientation=6),
    "mirrored.webp": encoded(noise("RGB", 120, 80), "WEBP", orientation=5),
}
sides = st.integers(2, 5000)


@settings(max_examples=500, deadline=None)
@given(
    width=sides,
    height=sides,
    few=st.integers(1, 64),
    more=st.integers(0, 1280),
    cell=st.integers(1, 40),
)
def test_the_size_is_the_processors(
    width: int, height: int, few: int, more: int, cell: int
) -> None:
    width, height = min(width, 200 * height), min(height, 200 * width)
    bounds = {"min_pixels": few * cell**2, "max_pixels": (few + more) * cell**2}
    high, wide = reference.smart_resize(height, width, factor=cell, **bounds)

    assert smart_resize(width, height, cell=cell, **bounds) == (wide, high)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(2, 400), height=st.integers(2, 400), seed=st.integers(0, 2**31))
def test_pixels_are_the_processors(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, seed: int
) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.getbasetemp() / "noise.png"
    path.write_bytes(encoded(Image.fromarray(rgb), "PNG"))

    size = SizeDict(shortest_edge=BOUNDS["min_pixels"], longest_edge=BOUNDS["max_pixels"])
    channels_first = reference.Qwen2VLImageProcessorPil().resize(
        rgb.transpose(2, 0, 1), size, PILImageResampling.BICUBIC, CELL
    )

    assert np.array_equal(load_picture(path, **BOUNDS), channels_first.transpose(1, 2, 0))


@pytest.mark.parametrize("name", [*DRAWN, *(path.name for path in SHIPPED)])
def test_the_size_in_a_header_is_that_of_the_pixels(tmp_path: Path, name: str) -> None:
    data = DRAWN.get(name) or next(path for path in SHIPPED if path.name == name).read_bytes()
    (tmp_path / name).write_bytes(data)

    image = load_picture(tmp_path / name, **BOUNDS)

    assert image.mode == "RGB"
    assert image.width % CELL == image.height % CELL == 0
    assert picture_size(tmp_path / name, **BOUNDS) == image.size


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no PNG, JPEG or WebP"),
        (encoded(noise("RGB", 60, 60), "GIF"), "no PNG, JPEG or WebP"),
        (DRAWN["photo.jpg"][:3000], "damaged or cut off"),
        (encoded(Image.new("L", (5000, 4000)), "PNG"), "5000 x 4000 pixels"),
        (encoded(Image.new("L", (1000, 3)), "PNG"), "as long as wide"),
        (b"\0" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(PictureUnreadable, match=reason):
        load_picture(path, **BOUNDS)
    with pytest.raises(PictureUnreadable, match="No such file"):
        load_picture(tmp_path / "none", **BOUNDS)
