"""The parts of a multipart/form-data body, as its bytes arrive.

The module depends on RFC 7578 and on its parser, on no HTTP and no image. Names, file names and
types of parts are ignored: what a part is, its bytes say. Invariant: the number of parts, their
headers and the bytes that are kept of each are bounded before they are read.
"""

from __future__ import annotations

import logging

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import InvalidRequest, UnsupportedMediaType

MAX_BOUNDARY = 70
"""Characters of a boundary (RFC 2046, 5.1.1)."""
MAX_HEADERS = 8
MAX_HEADER_BYTES = 1_024
_INVALID = "The request body is not valid multipart/form-data."

# the parser logs each fault with a byte of the body; a refusal says it, and the body is a caller's
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class MultipartBody:
    """Reads the parts of a body. One of more than `max_part_bytes` is None among `parts`.

    Raises `UnsupportedMediaType` where the content type names no valid boundary.
    """

    def __init__(self, content_type: str, *, max_parts: int, max_part_bytes: int) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise UnsupportedMediaType(
                f"multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY} characters."
            )
        self.parts: list[bytes | None] = []
        self._max_parts = max_parts
        self._max_part_bytes = max_part_bytes
        self._part = bytearray()
        self._is_too_large = False
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._add,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body; raises `InvalidRequest`."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise InvalidRequest(_INVALID) from None

    def close(self) -> list[bytes | None]:
        """The parts of the whole body; raises `InvalidRequest` where it is cut off, or empty."""
        if not self._ended or not self.parts:
            raise InvalidRequest(_INVALID)
        return self.parts

    def _begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise InvalidRequest(f"A body may hold {self._max_parts} images.")
        self._part = bytearray()
        self._is_too_large = False

    def _add(self, data: bytes, start: int, end: int) -> None:
        if len(self._part) + end - start > self._max_part_bytes:
            self._is_too_large = True
            self._part.clear()
        if not self._is_too_large:
            self._part += data[start:end]

    def _end(self) -> None:
        self.parts.append(None if self._is_too_large else bytes(self._part))
        self._part = bytearray()

    def _finish(self) -> None:
        self._ended = True
