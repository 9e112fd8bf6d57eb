"""A request's body, read within its bounds, and inflated where it was sent compressed.

Knows HTTP's headers of a body, nothing of its content. Invariant: no more of a body is held than
the bound, whatever was announced, and however small it was sent.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request

from service.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType

MAX_RATIO = 200
"""How many times larger a compressed body may become: text becomes ten times larger, a bomb a
thousand times."""
FREE_BYTES = 2**20
"""A body may become as large as this, however small it was sent."""
_PIECE_BYTES = 2**18
"""Bytes that one step of the event loop inflates: a millisecond."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_LONGEST_NUMBER = 18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _uncounted(more: int) -> None:
    """Nobody counts the bytes of all requests together."""


def announced_bytes(request: Request, max_bytes: int) -> int:
    """What `Content-Length` says, 0 where there is none; raises `BodyTooLarge` where it is no
    number, or above `max_bytes`."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > _LONGEST_NUMBER or int(announced) > max_bytes:
        raise BodyTooLarge
    return int(announced)


async def read_body(
    request: Request, max_bytes: int, count: Callable[[int], None] = _uncounted
) -> bytearray:
    """The whole body without compression and without a byte order mark; the size of each piece is
    told to `count`.

    Raises `BodyTooLarge` as soon as it is known to be larger than `max_bytes`,
    `UnsupportedMediaType` where it is compressed by anything but gzip, and `InvalidRequest` where
    that is broken, or grows more than `MAX_RATIO` times.
    """
    announced_bytes(request, max_bytes)
    codings = [
        each.strip().lower() for each in request.headers.get("content-encoding", "").split(",")
    ]
    compressed = [each for each in codings if each not in ("", "identity")]
    if compressed and compressed not in (["gzip"], ["x-gzip"]):
        raise UnsupportedMediaType("Send the body as it is, or with Content-Encoding: gzip.")
    pieces = _inflated(request.stream()) if compressed else request.stream()

    body = bytearray()
    async for piece in pieces:
        count(len(piece))
        body += piece
        if len(body) > max_bytes:
            raise BodyTooLarge
    if body.startswith(_BYTE_ORDER_MARK):
        del body[: len(_BYTE_ORDER_MARK)]
    return body


async def _inflated(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What was compressed, piece by piece, with other tasks' turns between them."""
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    taken = given = 0
    async for chunk in chunks:
        taken += len(chunk)
        left = chunk
        while left and not inflater.eof:
            piece = _inflate(inflater, left)
            left = inflater.unconsumed_tail
            given += len(piece)
            if given > max(FREE_BYTES, MAX_RATIO * taken):
                raise InvalidRequest(
                    f"A compressed body may become {MAX_RATIO} times larger: send it uncompressed."
                )
            yield piece
            await asyncio.sleep(0)
        if left or inflater.unused_data:
            raise _broken()
    if not inflater.eof:
        raise _broken()


def _inflate(inflater: zlib._Decompress, data: bytes) -> bytes:
    try:
        return inflater.decompress(data, _PIECE_BYTES)
    except zlib.error:
        raise _broken() from None


def _broken() -> InvalidRequest:
    return InvalidRequest("The request body is not valid gzip.")
