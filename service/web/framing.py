"""h11's HTTP/1.1 parser with further checks.

Depends on HTTP messages, not on connections or routes. It refuses a `Content-Length` beside chunked
encoding, which a proxy may read differently; more headers or trailers than clients send; and bodies
in tiny chunks, each of which costs more CPU time than it carries data. Invariant: a message that is
refused raises `h11.RemoteProtocolError` before the app sees it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h11

MAX_HEADER_BYTES = 64 * 1024
"""Bytes of a request's target and headers together, and of its trailers."""
MAX_HEADERS = 128
FREE_CHUNKS = 1_000
"""Chunks of a body that may have any size."""
MIN_MEAN_CHUNK_BYTES = 64
"""Mean size that the chunks of a body with more chunks must have."""
MIN_MEAN_DUPLEX_CHUNK_BYTES = 24
"""The same for a body that is answered while it is read: the shortest line of a stream is longer,
and clients send each line as a chunk."""

_Headers = Iterable[tuple[bytes, bytes]]


class Connection(h11.Connection):
    """h11's parser for a server, with the checks of this module."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self._chunks = self._chunk_bytes = 0
        self.min_mean_chunk_bytes = MIN_MEAN_CHUNK_BYTES

    def next_event(self) -> Any:
        """Return the next event; raises `h11.RemoteProtocolError` for a message that is refused."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._chunk_bytes = 0
            _check_headers(event.headers, len(event.target))
            _check_framing(event)
        elif isinstance(event, h11.Data):
            self._check_chunks(event)
        elif isinstance(event, h11.EndOfMessage):
            _check_headers(event.headers, 0)
        return event

    def _check_chunks(self, data: h11.Data) -> None:
        self._chunks += data.chunk_start
        self._chunk_bytes += len(data.data)
        least = self.min_mean_chunk_bytes * self._chunks
        if self._chunks > FREE_CHUNKS and self._chunk_bytes < least:
            raise h11.RemoteProtocolError("too many small chunks")


def _check_headers(headers: _Headers, target_bytes: int) -> None:
    sizes = [len(name) + len(value) for name, value in headers]
    if len(sizes) > MAX_HEADERS or sum(sizes) + target_bytes > MAX_HEADER_BYTES:
        raise h11.RemoteProtocolError("too many headers")


def _check_framing(request: h11.Request) -> None:
    names = {name for name, _ in request.headers}
    chunked = b"transfer-encoding" in names
    if chunked and (b"content-length" in names or request.http_version != b"1.1"):
        raise h11.RemoteProtocolError("ambiguous framing")
