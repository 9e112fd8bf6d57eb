"""A body's lines, from chunks that are cut anywhere.

Depends on bytes alone. A line ends with LF or CRLF; the last one may have no end. Blank lines are
left out, and counted. Invariant: at most `max_bytes` of an unfinished line are held; a longer line
is dropped as it arrives, and the lines after it are intact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE_BYTES = 2**16
"""Bytes that are split at once, which bounds the memory for very short lines."""


@dataclass(slots=True, eq=False)
class Line:
    """A line without its end, and its number from 1; `content` is None where it was too long, and
    once it has been read."""

    number: int
    content: bytearray | None


class LineSplitter:
    """Splits chunks of a body into lines of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._number = 0
        self._held = bytearray()
        self._too_long = False

    @property
    def ended(self) -> int:
        """The number of lines that have ended."""
        return self._number

    @property
    def held(self) -> int:
        """Bytes of the unfinished line."""
        return len(self._held)

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that end in this chunk, which is taken in when the iterator is at its end."""
        for start in range(0, len(chunk), _PIECE_BYTES):
            first, *others = chunk[start : start + _PIECE_BYTES].split(b"\n")
            self._hold(first)
            if not others:
                continue

            yield from self.end()
            last = others.pop()
            for content in others:
                self._number += 1
                if content and not content.isspace():
                    yield self._line(bytearray(content))
            self._hold(last)

    def end(self) -> Iterator[Line]:
        """The unfinished line, unless it is blank: the body has ended, or the line has."""
        content, too_long = self._held, self._too_long
        self._held, self._too_long = bytearray(), False
        self._number += 1
        if self._number == 1 and content.startswith(_BYTE_ORDER_MARK):
            del content[: len(_BYTE_ORDER_MARK)]

        if too_long:
            yield Line(self._number, None)
        elif content and not content.isspace():
            yield self._line(content)

    def _line(self, content: bytearray) -> Line:
        if len(content) > self._max_bytes:
            return Line(self._number, None)
        if content.endswith(b"\r"):
            del content[-1:]
        return Line(self._number, content)

    def _hold(self, piece: bytes) -> None:
        if self._too_long or len(self._held) + len(piece) > self._max_bytes:
            self._held.clear()
            self._too_long = True
        else:
            self._held += piece
