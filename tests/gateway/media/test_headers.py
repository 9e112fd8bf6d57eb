"""An image's size is read without Pillow, from bytes or from base64. It is the size that Pillow
finds, and reading it costs next to nothing for any image."""

from __future__ import annotations

import hashlib
import struct
import time
import warnings
from collections.abc import Iterator
from io import BytesIO

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.families.images import FORMATS
from service.errors import InvalidImage
from service.gateway.media.content import Picture
from service.gateway.media.decoders import Decoders
from service.gateway.media.headers import Header, Size, read_header, size_in_base64
from service.gateway.media.reader import Media
from service.items import Item
from service.limits import Limits
from service.wire import ImageRule, Pixels
from tests.gateway import encoded_pictures as made
from tests.gateway.encoded_pictures import bare

RULE = ImageRule(28, 4 * 28**2, 16 * 28**2)


@pytest.fixture(scope="module")
def loop() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as loop:
        yield loop


def pillows(data: bytes) -> Size | None:
    """The size that Pillow finds; None where it refuses the file."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(BytesIO(data), formats=FORMATS) as image,
        ):
            return image.size
    except Exception:
        return None


def header_of(data: bytes) -> Header | None:
    """None where the bytes are refused."""
    try:
        return read_header(data)
    except InvalidImage:
        return None


@pytest.mark.parametrize("kind", made.PICTURES)
def test_the_size_of_every_good_picture_is_pillows(kind: str) -> None:
    data = made.PICTURES[kind]
    assert read_header(data).size == size_in_base64(bare(data)) == pillows(data)


WAYS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "a long profile": ("JPEG", {"icc_profile": b"p" * 200_000}),
    "exif": ("JPEG", {"exif": b"Exif\0\0" + b"e" * 60_000}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "extended": ("WEBP", {"exif": b"Exif\0\0" + b"e" * 100}),
}
SIDES = st.integers(1, 300) | st.integers(1, 3_000)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(WAYS)), SIDES, SIDES)
def test_the_size_is_pillows_in_every_format_for_every_size(way: str, one: int, two: int) -> None:
    kind, options = WAYS[way]
    size = (one, min(two, 300_000 // one + 1))
    data = made.encode(Image.new("RGB", size, "red"), kind, **options)

    assert read_header(data).size == pillows(data) == size
    for source in (bare(data), made.data_url(data), bare(data).rstrip("=")):
        assert size_in_base64(source) == size


DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(made.PICTURES)), DAMAGE, st.floats(0, 1))
def test_a_damaged_picture_has_pillows_size_or_is_refused(
    kind: str, damage: list[tuple[float, int]], rest: float
) -> None:
    """Sizes are equal where both read one. A decoder may refuse what the header reader takes."""
    data = bytearray(made.PICTURES[kind])
    for position, byte in damage:
        data[int(position**3 * (len(data) - 1))] = byte  # headers come first
    broken = bytes(data[: len(data) - int(rest**4 * len(data))])

    header = header_of(broken)

    if header is not None:
        assert min(header.size) > 0
        assert pillows(broken) in (header.size, None)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_of_what_is_cut_off_the_size_is_right_or_unknown(kind: str) -> None:
    data = made.encode(Image.new("RGB", (50, 60), "red"), kind)
    for end in range(0, len(data), 7):
        assert size_in_base64(bare(data[:end])) in ((50, 60), None)
        assert size_in_base64(bare(data)[:end]) in ((50, 60), None)


STARTS = (
    b"\xff\xd8",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF....WEBPVP8 ",
    b"RIFF....WEBPVP8L",
    b"RIFF....WEBPVP8X",
    b"",
)


@given(st.sampled_from(STARTS), st.binary(max_size=300))
def test_bytes_and_base64_lead_to_the_same_size_and_to_no_other_error(
    start: bytes, rest: bytes
) -> None:
    header = header_of(start + rest)
    size = size_in_base64(bare(start + rest))

    assert size is None or min(size) > 0
    if header is not None and size is not None:
        assert header.size == size


@given(st.text(max_size=200))
def test_no_text_is_an_error(source: str) -> None:
    size = size_in_base64(source)
    assert size is None or min(size) > 0


@pytest.mark.parametrize(
    "source", ["https://example.org/a.png", "", ",", "data:image/png;base64,", "ÿØÿ", "\ud800" * 40]
)
def test_what_is_no_image_has_no_size(source: str) -> None:
    assert size_in_base64(source) is None


def test_of_base64_in_lines_the_size_is_unknown_beyond_the_first() -> None:
    """An offset in the image is then no offset in the text."""
    data = made.encode(Image.new("RGB", (640, 480)), "JPEG", icc_profile=b"p" * 5_000)
    lines = "\n".join(bare(data)[start : start + 76] for start in range(0, len(bare(data)), 76))

    assert size_in_base64(lines) is None


def test_endless_segments_are_followed_for_a_bounded_number_of_steps() -> None:
    endless = b"\xff\xd8" + struct.pack(">BBH", 0xFF, 0xE0, 2) * 100_000
    assert size_in_base64(bare(endless)) is None
    assert header_of(endless) is None


def test_every_pass_over_the_pixels_counts() -> None:
    assert read_header(made.jpeg_of_scans(64, 9)) == Header((64, 64), 1)
    assert read_header(made.jpeg_of_scans(64, 90)) == Header((64, 64), 10)


PROFILES = made.png_of_profiles(900)
"""A megabyte, of which Pillow makes nine hundred while it reads the size."""


def test_nothing_is_unpacked_to_read_a_size() -> None:
    begun = time.process_time()
    (seen,) = Media(Limits(), Decoders()).resolve(Item(image=bare(PROFILES)), ("query",))

    assert time.process_time() - begun < 0.3, "it took CPU seconds"
    assert isinstance(seen, Picture)
    assert seen.size == (48, 40)


def test_a_decoder_unpacks_no_profile_either(loop: BlockingPortal) -> None:
    reader = Media(Limits(), Decoders())
    budget = reader.decode_budget()
    plain, heavy = (
        Picture(data, hashlib.sha256(data).digest(), (), (48, 40))
        for data in (made.encode(made.picture()), PROFILES)
    )
    found = loop.call(reader.decode, [heavy, plain], RULE, budget)
    one, other = found.values()

    assert isinstance(one, Pixels)
    assert isinstance(other, Pixels)
    assert one.rgb == other.rgb
    assert reader.decode_budget().seconds - budget.seconds < 0.5
