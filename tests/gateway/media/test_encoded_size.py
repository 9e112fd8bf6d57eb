"""The size of an image, read from a few characters of its base64, is the size that Pillow finds."""

from __future__ import annotations

import base64
import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.gateway.media.encoded_size import image_size


def encoded(kind: str, size: tuple[int, int], **options: object) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, "red").save(file, kind, **options)
    return file.getvalue()


KINDS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "a long profile": ("JPEG", {"icc_profile": b"p" * 200_000}),
    "exif": ("JPEG", {"exif": b"Exif\0\0" + b"e" * 60_000}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "extended": ("WEBP", {"exif": b"Exif\0\0" + b"e" * 100}),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (640, 480), (3_000, 2)])
@pytest.mark.parametrize("label", ["", "data:image/png;base64,"])
def test_the_size_is_the_headers(name: str, size: tuple[int, int], label: str) -> None:
    kind, options = KINDS[name]
    assert image_size(label + base64.b64encode(encoded(kind, size, **options)).decode()) == size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_cut_off_or_broken_has_no_size_or_one_and_never_an_error(kind: str) -> None:
    data = encoded(kind, (50, 60))
    for end in range(0, len(data), 7):
        assert image_size(base64.b64encode(data[:end]).decode()) in ((50, 60), None)
        assert image_size(base64.b64encode(data).decode()[:end]) in ((50, 60), None)


@given(
    st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200).map(lambda data: base64.b64encode(data).decode()),
    )
)
def test_anything_else_has_none_or_a_positive_size(source: str) -> None:
    size = image_size(source)
    assert size is None or min(size) > 0


@given(
    st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 ", b"RIFF....WEBPVP8X"]),
    st.binary(max_size=300),
)
def test_no_rest_of_a_header_is_an_error(start: bytes, rest: bytes) -> None:
    size = image_size(base64.b64encode(start + rest).decode())
    assert size is None or min(size) > 0


def test_endless_segments_are_followed_a_while() -> None:
    endless = b"\xff\xd8" + struct.pack(">BBH", 0xFF, 0xE0, 2) * 100_000
    assert image_size(base64.b64encode(endless).decode()) is None


@pytest.mark.parametrize(
    "source", ["https://example.org/a.png", "", ",", "data:image/png;base64,", "ÿØÿ", "\ud800" * 40]
)
def test_what_is_no_image_has_no_size(source: str) -> None:
    assert image_size(source) is None


def test_base64_in_lines_is_not_looked_into_beyond_the_first() -> None:
    """Then a place in the image is not a place in the text: it counts as unknown."""
    assert (
        image_size(
            base64.encodebytes(encoded("JPEG", (640, 480), icc_profile=b"p" * 5_000)).decode()
        )
        is None
    )
