"""Reads a request's body within a size limit, and decompresses it if it was sent as gzip.

Depends on the HTTP headers that describe a body, not on its content. Invariant: no more of a body
is kept in memory than the limit, whatever size was announced, and however small it was sent.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request

from service.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType

MAX_RATIO = 200
"""The largest allowed ratio of decompressed to compressed size. Text reaches about 10, a
decompression bomb about 1,000."""
FREE_BYTES = 2**20
"""Decompressed size up to which the ratio is not checked."""
_PIECE_BYTES = 2**18
"""Bytes decompressed without yielding to the event loop: about a millisecond."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_MAX_DIGITS = 18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _no_count(more: int) -> None:
    """Count no bytes."""


def announced_bytes(request: Request, max_bytes: int) -> int:
    """The value of `Content-Length`; 0 without one.

    Raises `BodyTooLarge` if it is not a number, or above `max_bytes`.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > _MAX_DIGITS or int(announced) > max_bytes:
        raise BodyTooLarge
    return int(announced)


def expect_json(request: Request) -> None:
    """Raise `UnsupportedMediaType` where the body is announced as something else than JSON."""
    content_type = request.headers.get("content-type", "application/json")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        return
    if not (media_type.startswith("application/") and media_type.endswith("+json")):
        raise UnsupportedMediaType


async def read_body(
    request: Request, max_bytes: int, count: Callable[[int], None] = _no_count
) -> bytearray:
    """Read the whole body, decompressed and without a byte order mark.

    `count` is called with the size of each chunk. Raises `BodyTooLarge` as soon as the body exceeds
    `max_bytes`, `UnsupportedMediaType` for a compression other than gzip, and `InvalidRequest` for
    invalid gzip or a ratio above `MAX_RATIO`.
    """
    announced_bytes(request, max_bytes)
    body = bytearray()
    async for chunk in body_chunks(request):
        count(len(chunk))
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge

    if body.startswith(_BYTE_ORDER_MARK):
        del body[: len(_BYTE_ORDER_MARK)]
    return body


def body_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body's chunks as they arrive, decompressed.

    Raises `UnsupportedMediaType` for a compression other than gzip; the iterator raises
    `InvalidRequest` for invalid gzip or a ratio above `MAX_RATIO`.
    """
    codings = _codings(request)
    if codings and codings not in (["gzip"], ["x-gzip"]):
        raise UnsupportedMediaType("Send the body as it is, or with Content-Encoding: gzip.")
    return _decompressed(request.stream()) if codings else request.stream()


def _codings(request: Request) -> list[str]:
    """The compressions of a body, in the order in which they were applied."""
    header = request.headers.get("content-encoding", "")
    codings = [coding.strip().lower() for coding in header.split(",")]
    return [coding for coding in codings if coding not in ("", "identity")]


async def _decompressed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress a stream in pieces, and let other tasks run between them."""
    decompressor = zlib.decompressobj(_GZIP_WINDOW)
    bytes_in = bytes_out = 0
    async for chunk in chunks:
        bytes_in += len(chunk)
        rest = chunk
        while rest and not decompressor.eof:
            piece = _decompress(decompressor, rest)
            rest = decompressor.unconsumed_tail
            bytes_out += len(piece)
            if bytes_out > max(FREE_BYTES, MAX_RATIO * bytes_in):
                raise InvalidRequest(
                    f"A compressed body may become {MAX_RATIO} times larger: send it uncompressed."
                )
            yield piece
            await asyncio.sleep(0)

        if rest or decompressor.unused_data:
            raise _invalid_gzip()

    if not decompressor.eof:
        raise _invalid_gzip()


def _decompress(decompressor: zlib._Decompress, data: bytes) -> bytes:
    try:
        return decompressor.decompress(data, _PIECE_BYTES)
    except zlib.error:
        raise _invalid_gzip() from None


def _invalid_gzip() -> InvalidRequest:
    return InvalidRequest("The request body is not valid gzip.")
