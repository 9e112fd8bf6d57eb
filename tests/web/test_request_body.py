"""Bodies as they arrive: compressed or not, in pieces of any size, within their bounds."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from service.errors import BodyTooLarge, InvalidRequest, RerankError, UnsupportedMediaType
from service.web.request_body import FREE_BYTES, MAX_RATIO, read_body

CAP = 10 * 2**20


def request(pieces: Sequence[bytes], **headers: str) -> Request:
    """A request whose body arrives in these pieces."""
    left = list(pieces)

    async def receive() -> Message:
        return {
            "type": "http.request",
            "body": left.pop(0) if left else b"",
            "more_body": bool(left),
        }

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


async def read(pieces: Sequence[bytes], most: int = CAP, **headers: str) -> tuple[bytes, int]:
    """The body that is read of these pieces, and the bytes that were counted."""
    counted: list[int] = []
    body = await read_body(request(pieces, **headers), most, counted.append)
    return bytes(body), sum(counted)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3_000), st.integers(1, 700), st.integers(1, 200))
async def test_a_compressed_body_is_what_was_compressed(data: bytes, size: int, times: int) -> None:
    for coding in ("gzip", "GZIP", "x-gzip", "identity, gzip"):
        packed = cut(gzip.compress(data * times, mtime=0), size)
        assert await read(packed, content_encoding=coding) == (data * times, len(data * times))


@given(st.binary(max_size=300), st.integers(1, 50))
async def test_a_byte_order_mark_is_left_out_once(data: bytes, size: int) -> None:
    mark = b"\xef\xbb\xbf"
    for body in (data, mark + data, mark + mark + data):
        assert (await read(cut(body, size)))[0] == body.removeprefix(mark)
        assert (await read(cut(gzip.compress(body), size), content_encoding="gzip"))[
            0
        ] == body.removeprefix(mark)


async def refused(
    pieces: Sequence[bytes], kind: type[RerankError], most: int = CAP, **headers: str
) -> str:
    with pytest.raises(kind) as caught:
        await read(pieces, most, **headers)
    return caught.value.message


@pytest.mark.parametrize(
    "coding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "x", "gzip;q=1"]
)
async def test_other_codings_are_refused(coding: str) -> None:
    await refused([b"{}"], UnsupportedMediaType, content_encoding=coding)


async def test_what_is_no_gzip_or_not_all_of_it_is_refused() -> None:
    packed = gzip.compress(b"text " * 100)
    wrong = bytearray(packed)
    wrong[-6] ^= 1  # its checksum
    for pieces in (
        [],
        [b"{}"],
        [packed[:-1]],
        [packed[:10]],
        [bytes(wrong)],
        [packed, b"x"],
        [packed + packed],
        [zlib.compress(b"x")],
    ):
        assert (
            await refused(pieces, InvalidRequest, content_encoding="gzip")
            == "The request body is not valid gzip."
        )


async def test_an_inflated_body_is_bounded_as_any_other() -> None:
    body = bytes(range(256)) * 4_096
    assert (await read([gzip.compress(body)], len(body), content_encoding="gzip"))[0] == body
    await refused([gzip.compress(body)], BodyTooLarge, len(body) - 1, content_encoding="gzip")
    await refused([gzip.compress(body)], BodyTooLarge, 1_024, content_encoding="gzip")


async def test_a_bomb_is_given_up_before_it_has_grown() -> None:
    """However it is cut, and even where it would fit."""
    bomb = gzip.compress(bytes(CAP))
    assert len(bomb) * MAX_RATIO < CAP
    for size in (100, 1_000, len(bomb)):
        counted: list[int] = []
        with pytest.raises(InvalidRequest, match="times larger"):
            await read_body(request(cut(bomb, size), content_encoding="gzip"), CAP, counted.append)
        assert sum(counted) <= max(FREE_BYTES, MAX_RATIO * len(bomb))
    small = gzip.compress(bytes(FREE_BYTES))
    assert len(small) * MAX_RATIO < FREE_BYTES
    assert len((await read([small], content_encoding="gzip"))[0]) == FREE_BYTES
