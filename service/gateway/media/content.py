"""What makes two things the same to the gateway: bytes, framed by their lengths.

Knows contents, nothing of what is looked up by them. Invariant: two lists of fields give the same
bytes only if they are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import Loc


def framed(*fields: bytes) -> bytes:
    """Fields with their lengths, so that no two lists of fields give the same bytes."""
    return b"".join([len(field).to_bytes(8, "big") + field for field in fields])


def identity(content: Content) -> bytes:
    """A content as bytes: its texts as they are, its images by their digest."""
    if len(content) == 1 and isinstance(content[0], Text):  # nearly every document
        return b"t" + content[0].text.encode()
    return b"m" + framed(
        *(
            b"t" + part.text.encode() if isinstance(part, Text) else b"i" + part.digest
            for part in content
        )
    )


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of an item."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image part of an item, still encoded.

    `digest` is the SHA-256 of `data`, `loc` its place in the request, `size` (width, height) as its
    header says; a decoder goes over its pixels `passes` times as often as is usual.
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
        """How many pixels a decoder goes over."""
        return self.pixels * self.passes


Content = tuple[Text | Picture, ...]
"""One side of a pair as it was sent: texts and images in order."""
