"""Parts of multipart bodies: whole however they arrive, and refused beyond the bounds."""

from __future__ import annotations

import logging
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest, UnsupportedMediaType
from service.gateway.images.multipart import (
    MAX_BOUNDARY,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MultipartBody,
)

PARTS, PART_BYTES = 6, 2_000
TYPE = "multipart/form-data; boundary=x"
HEAD = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\n'

parts = st.lists(st.binary(max_size=PART_BYTES), min_size=1, max_size=PARTS)
cuts = st.lists(st.integers(1, 500), min_size=1, max_size=50)


def read(body: bytes, sizes: list[int] | None = None, content_type: str = TYPE) -> list[object]:
    """The parts of a body that arrives in chunks of these sizes, in turns."""
    reader = MultipartBody(content_type, max_parts=PARTS, max_part_bytes=PART_BYTES)
    start = turn = 0
    while start < len(body):
        size = (sizes or [len(body)])[turn % len(sizes or [0])]
        reader.write(body[start : start + size])
        start, turn = start + size, turn + 1
    return list(reader.close())


@given(parts, cuts)
def test_parts_of_a_client_are_read_whole_however_they_are_cut(
    contents: list[bytes], sizes: list[int]
) -> None:
    files = [("images", (f"{number}.png", data)) for number, data in enumerate(contents)]
    request = httpx.Request("PUT", "http://gateway", files=files)
    assert read(request.read(), sizes, request.headers["content-type"]) == contents


@given(
    st.lists(st.sampled_from([b"--x", b"\r\n", b"--", b"\r", b"x", b":", b"\0\xff"]) | st.binary()),
    cuts,
)
def test_any_other_bytes_are_refused_or_read(pieces: list[bytes], sizes: list[int]) -> None:
    with suppress(InvalidRequest):
        assert 1 <= len(read(b"".join(pieces), sizes)) <= PARTS


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1, 50 * PART_BYTES])
def test_a_part_that_is_too_large_is_none_and_the_others_are_kept(size: int) -> None:
    large = b"y" * size
    body = HEAD + b"one\r\n" + HEAD + large + b"\r\n" + HEAD + b"three\r\n--x--\r\n"
    assert read(body, [1_000]) == [b"one", large if size <= PART_BYTES else None, b"three"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x--\r\n",
        HEAD + b"cut off",
        HEAD + b"one\r\n--x",
        (HEAD + b"one\r\n") * (PARTS + 1) + b"--x--",
        b"--x\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\none\r\n--x--",
        b"--x\r\na: " + b"b" * MAX_HEADER_BYTES + b"\r\n\r\none\r\n--x--",
        b"--x\r\n" + b"a" * MAX_HEADER_BYTES + b": b\r\n\r\none\r\n--x--",
        b"--x\r\nno colon\r\n\r\none\r\n--x--",
        b"--y\r\n\r\none\r\n--y--",
        b"\r\n" * 10_000,
    ],
    ids=[
        *("empty", "no part", "cut off", "no end", "many parts", "many headers"),
        *("long value", "long name", "no header", "other boundary", "newlines"),
    ],
)
def test_bodies_beyond_the_bounds_are_refused(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(InvalidRequest):
        read(body, [700])
    assert not caplog.records


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * (MAX_BOUNDARY + 1)}",
    ],
)
def test_a_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(HEAD, content_type=content_type)
