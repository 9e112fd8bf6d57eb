"""Pictures are to training, pixel for pixel, what they are to the service."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model_store.families import images as pictures
from service.gateway.media import decoding as service

BOUNDS = {"cell": 28, "min_pixels": 16 * 784, "max_pixels": 64 * 784}
SHIPPED = sorted((Path(__file__).parents[2] / "pictures").glob("*.png"))


def noise(mode: str, width: int, height: int) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(7).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def encoded(picture: Image.Image, form: str, turn: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = BytesIO()
    picture.save(file, form, exif=exif)
    return file.getvalue()


DRAWN = {
    "grey.png": encoded(noise("L", 90, 50), "PNG"),
    "clear.png": encoded(noise("RGBA", 61, 200), "PNG"),
    "photo.jpg": encoded(noise("RGB", 640, 427), "JPEG"),
    "lying.jpg": encoded(noise("RGB", 300, 200), "JPEG", turn=6),
    "mirrored.webp": encoded(noise("RGB", 120, 80), "WEBP", turn=5),
}


@pytest.mark.parametrize("name", [*DRAWN, *(path.name for path in SHIPPED)])
def test_pixels_are_the_services(tmp_path: Path, name: str) -> None:
    data = DRAWN.get(name) or next(path for path in SHIPPED if path.name == name).read_bytes()
    (tmp_path / name).write_bytes(data)
    width, height, rows = service._decode(data, 28, 16 * 784, 64 * 784)
    ours = pictures.load_picture(tmp_path / name, **BOUNDS)
    assert ours.shape == (height, width, 3)
    assert ours.tobytes() == rows
    assert pictures.picture_size(tmp_path / name, **BOUNDS) == (width, height)


@given(st.integers(2, 4000), st.integers(2, 4000))
def test_sizes_are_the_services(width: int, height: int) -> None:
    bounds = {"cell": 28, "min_pixels": 4 * 784, "max_pixels": 1280 * 784}
    assert pictures.smart_resize(width, height, **bounds) == service.smart_resize(
        width, height, **bounds
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no PNG, JPEG or WebP"),
        (encoded(noise("RGB", 60, 60), "GIF"), "no PNG, JPEG or WebP"),
        (DRAWN["photo.jpg"][:3000], "damaged or cut off"),
        (encoded(Image.new("L", (5000, 4000)), "PNG"), "5000 x 4000 pixels"),
        (encoded(Image.new("L", (1000, 3)), "PNG"), "as long as wide"),
        (b"\0" * (pictures.MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(pictures.PictureUnreadable, match=reason):
        pictures.load_picture(path, **BOUNDS)
    with pytest.raises(pictures.PictureUnreadable, match="No such file"):
        pictures.load_picture(tmp_path / "none", **BOUNDS)
