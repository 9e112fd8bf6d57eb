"""HTTP/1.1 messages as h11 reads them, without those that it lets pass and this service does not
take.

Knows messages, no connections and no routes. Refused: a length together with chunks, which a proxy
may read otherwise, more headers or trailers than any client sends, and bodies in crumbs, each of
which costs more than it brings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h11

MAX_HEADER_BYTES = 64 * 1024
"""Bytes of a request's target and headers, and of its trailers."""
MAX_HEADERS = 128
FREE_CHUNKS = 1_000
"""Chunks of a body that may have any size."""
LEAST_CHUNK = 64
"""Bytes that a body's chunks have on average when there are more."""

_Headers = Iterable[tuple[bytes, bytes]]


class Connection(h11.Connection):
    """h11's parser for a server, stricter."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self._chunks = self._chunk_bytes = 0

    def next_event(self) -> Any:
        """The next event; raises `h11.RemoteProtocolError` where the client's message is not
        taken."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._chunk_bytes = 0
            _expect_few(event.headers, len(event.target))
            _expect_one_framing(event)
        elif isinstance(event, h11.Data):
            self._count(event)
        elif isinstance(event, h11.EndOfMessage):
            _expect_few(event.headers, 0)
        return event

    def _count(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._chunk_bytes += len(data.data)
        if self._chunks > FREE_CHUNKS and self._chunk_bytes < LEAST_CHUNK * self._chunks:
            raise h11.RemoteProtocolError("too many small chunks")


def _expect_few(headers: _Headers, others: int) -> None:
    sizes = [len(name) + len(value) for name, value in headers]
    if len(sizes) > MAX_HEADERS or sum(sizes) + others > MAX_HEADER_BYTES:
        raise h11.RemoteProtocolError("too many headers")


def _expect_one_framing(request: h11.Request) -> None:
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version != b"1.1"
    ):
        raise h11.RemoteProtocolError("ambiguous framing")
