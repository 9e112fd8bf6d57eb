"""An image's size is read without Pillow, is the one that Pillow finds, and costs next to nothing
whatever the image holds."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.families.images import FORMATS
from service.api import Item, Limits
from service.errors import InvalidImage
from service.gateway.media.content import Picture
from service.gateway.media.headers import Header, read_header
from service.gateway.media.reader import Media
from service.wire import ImageRule, Pixels
from tests.gateway import encoded_pictures as made

RULE = ImageRule(28, 4 * 28**2, 16 * 28**2)


@pytest.fixture(scope="module")
def loop() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as loop:
        yield loop


def pillows(data: bytes) -> tuple[int, int] | None:
    """The size that Pillow finds; None where it refuses the file."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(BytesIO(data), formats=FORMATS) as image,
        ):
            return image.size
    except Exception:
        return None


@pytest.mark.parametrize("kind", made.PICTURES)
def test_the_size_of_every_good_picture_is_pillows(kind: str) -> None:
    assert read_header(made.PICTURES[kind]).size == pillows(made.PICTURES[kind])


DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(list(made.PICTURES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
def test_a_damaged_picture_has_pillows_size_or_is_refused(
    kind: str, damage: list[tuple[float, int]], rest: float
) -> None:
    """Where both read it. What one of them refuses is refused: here, or by the decoder."""
    data = bytearray(made.PICTURES[kind])
    for place, byte in damage:
        data[int(place**3 * (len(data) - 1))] = byte  # headers come first
    broken = bytes(data[: len(data) - int(rest**4 * len(data))])
    try:
        header = read_header(broken)
    except InvalidImage:
        return
    assert min(header.size) > 0
    assert pillows(broken) in (header.size, None)


STARTS = (
    b"\xff\xd8",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF....WEBPVP8 ",
    b"RIFF....WEBPVP8L",
    b"RIFF....WEBPVP8X",
    b"",
)


@given(st.sampled_from(STARTS), st.binary(max_size=300))
def test_no_bytes_lead_to_another_error(start: bytes, rest: bytes) -> None:
    with suppress(InvalidImage):
        assert min(read_header(start + rest).size) > 0


def test_every_pass_over_the_pixels_counts() -> None:
    assert read_header(made.jpeg_of_scans(64, 9)) == Header((64, 64), 1)
    assert read_header(made.jpeg_of_scans(64, 90)) == Header((64, 64), 10)


PROFILES = made.png_of_profiles(900)
"""A megabyte, of which Pillow makes nine hundred while it reads the size."""


def test_nothing_is_unpacked_to_read_a_size() -> None:
    begun = time.process_time()
    (seen,) = Media(Limits()).resolve(Item(image=made.bare(PROFILES)), ("query",))
    assert time.process_time() - begun < 0.3, "it took CPU seconds"
    assert isinstance(seen, Picture)
    assert seen.size == (48, 40)


def test_a_decoder_unpacks_no_profile_either(loop: BlockingPortal) -> None:
    reader = Media(Limits())
    decoding = reader.decoding()
    plain, heavy = (
        Picture(data, hashlib.sha256(data).digest(), (), (48, 40))
        for data in (made.encode(made.picture()), PROFILES)
    )
    found = loop.call(reader.decode, [heavy, plain], RULE, decoding)
    one, other = found.values()
    assert isinstance(one, Pixels)
    assert isinstance(other, Pixels)
    assert one.rgb == other.rgb
    assert reader.decoding().seconds - decoding.seconds < 0.5
