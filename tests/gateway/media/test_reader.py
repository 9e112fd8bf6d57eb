"""Pictures: which are refused before anything is decoded, and what pixels the others become."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from itertools import chain

import anyio.to_process
import numpy as np
import numpy.typing as npt
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as reference

from service.errors import BadRequest, ImageTooLarge, InvalidImage, RerankError
from service.gateway.costs import pixel_bytes
from service.gateway.media.content import Content, Picture, Text
from service.gateway.media.decoders import BATCH_IMAGES, BATCH_PIXELS, Decoders, batches
from service.gateway.media.headers import MAX_PIECES, MAX_SCANS, read_header
from service.gateway.media.reader import Media
from service.items import Item
from service.limits import Limits
from service.wire import ImageRule, Pixels
from tests.gateway import encoded_pictures as made
from tests.gateway.encoded_pictures import bare, data_url, encode, picture

CELL = 28
RULE = ImageRule(CELL, 4 * CELL**2, 16 * CELL**2)
AS_IT_IS = ImageRule(1, 1, 16_000_000)
LOC = ("documents", 3)
PNG = encode(picture())


def resolve(item: object, **limits: int) -> Content:
    return Media(Limits(**limits), Decoders()).resolve(Item.validated(item), LOC)


def refusal(item: object, **limits: int) -> tuple[str, tuple[str | int, ...]]:
    with pytest.raises(BadRequest) as caught:
        resolve(item, **limits)
    (problem,) = caught.value.problems
    return caught.value.code, problem.loc[len(LOC) :]


@pytest.fixture(scope="module")
def loop() -> Iterator[BlockingPortal]:
    """An event loop that outlives the tests: anyio ends a loop's child processes with its first
    task."""
    with start_blocking_portal() as loop:
        loop.call(Media(Limits(), Decoders()).warm_up)
        yield loop


def decoded(loop: BlockingPortal, data: bytes, rule: ImageRule = AS_IT_IS) -> Pixels | RerankError:
    whole = Picture(data, hashlib.sha256(data).digest(), LOC, (1, 1))
    (outcome,) = loop.call(Media(Limits(), Decoders()).decode, [whole], rule).values()
    return outcome


def pixels(loop: BlockingPortal, data: bytes, rule: ImageRule = AS_IT_IS) -> npt.NDArray[np.uint8]:
    outcome = decoded(loop, data, rule)
    assert isinstance(outcome, Pixels)
    return np.frombuffer(outcome.rgb, np.uint8).reshape(outcome.height, outcome.width, 3)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(2, 300), height=st.integers(2, 300), seed=st.integers(0, 2**31))
def test_pixels_are_the_processors(
    loop: BlockingPortal, width: int, height: int, seed: int
) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    size = SizeDict(shortest_edge=RULE.min_pixels, longest_edge=RULE.max_pixels)
    processor = reference.Qwen2VLImageProcessorPil()
    expected = processor.resize(
        rgb.transpose(2, 0, 1), size, PILImageResampling.BICUBIC, CELL
    ).transpose(1, 2, 0)

    assert np.array_equal(pixels(loop, encode(Image.fromarray(rgb)), RULE), expected)


@pytest.mark.parametrize("kind", made.PICTURES)
def test_every_good_picture_is_read(loop: BlockingPortal, kind: str) -> None:
    data = made.PICTURES[kind]
    header = read_header(data)
    expected = Picture(
        data, hashlib.sha256(data).digest(), (*LOC, "image"), header.size, header.passes
    )

    assert resolve({"image": bare(data)}) == (expected,)
    rgb = pixels(loop, data, RULE)
    assert rgb.shape[0] % CELL == rgb.shape[1] % CELL == 0
    assert RULE.min_pixels <= rgb.shape[0] * rgb.shape[1] <= RULE.max_pixels


@pytest.mark.parametrize("kind", ["png", "jpeg", "jpg", "webp", "PNG"])
def test_the_bytes_say_what_a_picture_is_not_the_label(kind: str) -> None:
    data = encode(picture(), "JPEG")
    assert resolve({"image": data_url(data, kind)}) == resolve({"image": bare(data)})


def test_base64_may_be_broken_into_lines() -> None:
    lines = "\n".join(bare(PNG)[start : start + 76] for start in range(0, len(bare(PNG)), 76))
    assert resolve({"image": lines}) == resolve({"image": bare(PNG)})


def test_parts_stay_in_order() -> None:
    image = {"type": "image_url", "image_url": {"url": data_url(PNG)}}
    text = {"type": "text", "text": "between"}
    first, between, second = resolve({"content": [image, text, image]})

    assert between == Text("between")
    assert isinstance(first, Picture)
    assert isinstance(second, Picture)
    assert first.digest == second.digest == hashlib.sha256(PNG).digest()
    assert second.loc == (*LOC, "content", 2, "image_url", "url")


@pytest.mark.parametrize("kind", made.REFUSED)
@pytest.mark.parametrize("label", ["png", "jpeg", "webp"])
def test_other_formats_are_refused_whatever_their_label(kind: str, label: str) -> None:
    assert refusal({"image": data_url(made.REFUSED[kind], label)}) == ("invalid_image", ("image",))


@pytest.mark.parametrize(
    "data",
    [
        made.png_with(*[made.chunk(b"tEXt", b"k\0v")] * (MAX_PIECES + 1)),
        made.png_with(*[made.chunk(b"zTXt", b"k\0\0x")] * (MAX_PIECES + 1)),
        made.jpeg_with(b"\xff\xfe\0\2" * (MAX_PIECES + 1)),
        made.jpeg_with(b"\xff" * (MAX_PIECES + 1)),
        made.jpeg_with(b"\0" * (MAX_PIECES + 1)),
        made.jpeg_of_scans(64, MAX_SCANS),
    ],
    ids=["chunks", "compressed chunks", "segments", "filling", "junk", "scans"],
)
def test_a_picture_of_far_too_many_pieces_is_refused_before_they_are_read(data: bytes) -> None:
    assert refusal({"image": bare(data)}) == ("invalid_image", ("image",))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(made.PICTURES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_picture_is_pixels_or_refused_in_our_own_words(
    loop: BlockingPortal, kind: str, damage: list[tuple[float, int]]
) -> None:
    data = bytearray(made.PICTURES[kind])
    for position, byte in damage:
        data[int(position * (len(data) - 1))] = byte
    try:
        resolved = resolve({"image": bare(bytes(data))})
    except BadRequest:
        return

    (part,) = resolved

    assert isinstance(part, Picture)
    (outcome,) = loop.call(Media(Limits(), Decoders()).decode, [part], RULE).values()
    assert isinstance(outcome, Pixels) or str(outcome) in (
        InvalidImage.message,
        ImageTooLarge.message,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        PNG[:20],
        b"RIFF\0\0\0\0WEBPVP8X",
        b"\xff\xd8\xff",
    ],
)
def test_what_has_no_header_is_refused(data: bytes) -> None:
    assert refusal({"image": f"data:image/png;base64,{bare(data)}"}) == (
        "invalid_image",
        ("image",),
    )


@pytest.mark.parametrize(
    "source",
    [
        "not base64!",
        "aGVsbG8",
        "data:image/gif;base64,aaaa",
        "data:image/png,aaaa",
        "data:image/png;base64",
        "data:,",
        "é",
        "file:///x",
    ],
)
def test_what_is_no_base64_picture_is_refused(source: str) -> None:
    assert refusal({"image": source}) == ("invalid_image", ("image",))


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png", "http://localhost/a.png", " HTTPS://example.com"]
)
def test_urls_are_not_fetched(url: str) -> None:
    assert refusal({"image": url}) == ("image_url_disabled", ("image",))
    part = {"type": "image_url", "image_url": {"url": url}}
    assert refusal({"content": [part]}) == (
        "image_url_disabled",
        ("content", 0, "image_url", "url"),
    )


def test_a_data_url_is_not_a_text() -> None:
    assert refusal(data_url(PNG))[0] == "invalid_request"
    assert (
        refusal({"content": [{"type": "text", "text": f" {data_url(PNG)}"}]})[0]
        == "invalid_request"
    )
    assert resolve("data: what is it?") == (Text("data: what is it?"),)


@pytest.mark.parametrize(
    "claim", [made.png_that_claims, made.jpeg_that_claims, made.webp_that_claims]
)
@pytest.mark.parametrize("size", [(16_000, 15_000), (4000, 4001)])
def test_a_bomb_is_known_by_its_header(claim: made.Claim, size: made.Size) -> None:
    assert refusal({"image": bare(claim(*size))}) == ("image_too_large", ("image",))


@pytest.mark.parametrize(
    ("size", "fine"),
    [((1, 1), False), ((1, 50), False), ((2, 401), False), ((2, 400), True), ((2, 2), True)],
)
def test_sides_are_neither_tiny_nor_too_unequal(size: made.Size, fine: bool) -> None:
    item = {"image": bare(encode(picture(size)))}
    if fine:
        assert resolve(item)
    else:
        assert refusal(item) == ("invalid_image", ("image",))


def test_limits_are_those_of_the_settings() -> None:
    image = {"type": "image_url", "image_url": {"url": bare(PNG)}}
    text = {"type": "text", "text": "12345"}

    assert refusal({"content": [image] * 3}, max_images_per_item=2) == ("invalid_request", ())
    assert len(resolve({"content": [image] * 2}, max_images_per_item=2)) == 2
    assert refusal({"content": [text] * 3}, max_text_chars=14) == ("invalid_request", ())
    assert len(resolve({"content": [text] * 3}, max_text_chars=15)) == 3

    noise = encode(Image.effect_noise((40, 40), 80))
    assert refusal({"image": bare(noise)}, max_image_bytes=1024) == ("image_too_large", ("image",))
    assert resolve({"image": bare(noise)}, max_image_bytes=len(noise))
    assert refusal({"image": bare(PNG)}, max_image_pixels=48 * 40 - 1) == (
        "image_too_large",
        ("image",),
    )
    assert resolve({"image": bare(PNG)}, max_image_pixels=48 * 40)


def test_a_turned_photo_stands_upright(loop: BlockingPortal) -> None:
    for orientation, turn in [
        (1, None),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
    ]:
        upright = picture() if turn is None else picture().transpose(turn)
        turned = encode(picture(), exif=made.exif(orientation))

        assert np.array_equal(pixels(loop, turned), np.asarray(upright))


def test_cmyk_becomes_the_same_colours(loop: BlockingPortal) -> None:
    rgb = pixels(loop, encode(picture().convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert np.abs(rgb.astype(int) - np.asarray(picture())).max() < 12


def test_transparency_becomes_white(loop: BlockingPortal) -> None:
    palette = Image.new("P", (4, 4))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 1)
    rgb = pixels(loop, encode(palette, transparency=0))

    assert rgb[0, 0].tolist() == [0, 0, 255]
    assert (rgb[1:] == 255).all()

    veil = pixels(loop, encode(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert np.abs(veil.astype(int) - 127).max() <= 1


@pytest.mark.parametrize(("level", "seen"), [(0, 0), (0x8000, 0x80), (0xFFFF, 0xFF)])
def test_sixteen_bits_are_scaled_to_eight(loop: BlockingPortal, level: int, seen: int) -> None:
    deep = Image.fromarray(np.full((4, 4), level, np.uint16))
    assert (pixels(loop, encode(deep)) == seen).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_counts(loop: BlockingPortal, kind: str) -> None:
    red, green, blue = np.moveaxis(pixels(loop, made.animated(kind)), 2, 0).astype(int)
    assert red.min() > 240 > 15 > max(green.max(), blue.max())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_refused(loop: BlockingPortal, kind: str) -> None:
    whole = encode(picture(), kind)
    assert isinstance(decoded(loop, whole[: len(whole) * 2 // 3]), InvalidImage)


def test_a_child_may_not_take_all_memory(loop: BlockingPortal) -> None:
    assert isinstance(decoded(loop, made.webp_that_claims(3000, 3000), RULE), Pixels)
    assert str(decoded(loop, made.webp_that_claims(12_000, 12_000), RULE)) in (
        InvalidImage.message,
        ImageTooLarge.message,
    )


def test_a_picture_that_takes_too_long_costs_its_child_and_no_other(loop: BlockingPortal) -> None:
    slow = sent(encode(Image.effect_noise((2500, 2500), 80), "JPEG", progressive=True))
    child = loop.call(anyio.to_process.run_sync, os.getpid)
    (outcome,) = loop.call(
        Media(Limits(), Decoders(decode_seconds=0.02)).decode, slow, RULE
    ).values()

    assert isinstance(outcome, InvalidImage)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    (outcome,) = loop.call(Media(Limits(), Decoders()).decode, slow, RULE).values()

    assert isinstance(outcome, Pixels)


def test_a_child_that_was_killed_meanwhile_costs_no_picture(loop: BlockingPortal) -> None:
    child = loop.call(anyio.to_process.run_sync, os.getpid)
    os.kill(child, signal.SIGKILL)

    assert isinstance(decoded(loop, encode(picture()), RULE), Pixels)


def sent(*encoded: bytes) -> list[Picture]:
    return [
        Picture(data, hashlib.sha256(data).digest(), LOC, read_header(data).size)
        for data in encoded
    ]


def test_a_broken_picture_costs_no_other_of_its_batch(loop: BlockingPortal) -> None:
    batch = sent(
        *(
            encode(picture((40, 40 + number)))[: 80 if number % 3 == 1 else None]
            for number in range(20)
        )
    )
    outcome = loop.call(Media(Limits(), Decoders()).decode, batch, AS_IT_IS)

    assert list(outcome) == [each.digest for each in batch]
    for number, each in enumerate(outcome.values()):
        if number % 3 == 1:
            assert isinstance(each, InvalidImage)
        else:
            assert isinstance(each, Pixels)
            assert (each.digest, each.width, each.height) == (batch[number].digest, 40, 40 + number)
            assert each.rgb == picture((40, 40 + number)).tobytes()


def test_a_child_that_dies_with_a_batch_costs_no_picture(loop: BlockingPortal) -> None:
    slow = encode(Image.effect_noise((1900, 1900), 80), "JPEG", progressive=True)
    batch = sent(*(encode(picture((40, 40 + number))) for number in range(8)), slow)
    child = loop.call(anyio.to_process.run_sync, os.getpid)
    decoding = loop.start_task_soon(Media(Limits(), Decoders()).decode, batch, RULE)
    os.kill(child, signal.SIGKILL)

    assert all(isinstance(each, Pixels) for each in decoding.result(60).values())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 4000), st.integers(2, 4000)), max_size=80), st.integers(1, 8)
)
def test_batches_are_bounded_and_hold_every_picture_once_and_in_order(
    sizes: list[made.Size], children: int
) -> None:
    wanted = [Picture(b"", b"%d" % number, LOC, size) for number, size in enumerate(sizes)]
    made_up = list(batches(wanted, children))

    assert list(chain.from_iterable(made_up)) == wanted
    for batch in made_up:
        assert 1 <= len(batch) <= min(BATCH_IMAGES, -(-len(wanted) // children))
        assert len(batch) == 1 or sum(image.pixels for image in batch) <= BATCH_PIXELS


@settings(max_examples=100, deadline=None)
@given(width=st.integers(2, 400), height=st.integers(2, 400), orientation=st.integers(1, 8))
def test_pixels_take_what_the_header_foretells(
    loop: BlockingPortal, width: int, height: int, orientation: int
) -> None:
    (turned,) = sent(encode(picture((width, height)), exif=made.exif(orientation)))
    (outcome,) = loop.call(Media(Limits(), Decoders()).decode, [turned], RULE).values()

    assert isinstance(outcome, Pixels)
    assert len(outcome.rgb) == pixel_bytes(turned, RULE)
