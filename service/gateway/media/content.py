"""Contents: one side of a pair as it was sent, and the bytes that identify it.

The module depends on no cache and no model. Invariant: two lists of fields are framed as the same
bytes only if they are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from service.errors import Loc


class Text(msgspec.Struct, frozen=True):
    """A text of an item."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image of an item.

    `digest` is the SHA-256 of `data`, `loc` its location in the request, and `size` its (width,
    height) by its header. A decoder goes over its pixels `passes` times as often as usual.
    """

    data: bytes
    digest: bytes
    loc: Loc
    size: tuple[int, int]
    passes: int = 1

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def effort(self) -> int:
        """The number of pixels that a decoder goes over."""
        return self.pixels * self.passes


Content = tuple[Text | Picture, ...]
"""A query or a document: its texts and images in order."""


def identity(content: Content) -> bytes:
    """A content as bytes: its texts as UTF-8, its images by their digests."""
    # nearly every document is one text
    if len(content) == 1 and isinstance(content[0], Text):
        return b"t" + content[0].text.encode()

    fields: list[bytes] = []
    for part in content:
        if isinstance(part, Text):
            fields.append(b"t" + part.text.encode())
        else:
            fields.append(b"i" + part.digest)
    return b"m" + framed(*fields)


def framed(*fields: bytes) -> bytes:
    """Fields with their lengths before them, so that different lists give different bytes."""
    return b"".join([len(field).to_bytes(8, "big") + field for field in fields])
