"""What every family speaks: items in, prompts out.

Knows nothing of templates, tokenizers or networks. Invariant: a `Segment`'s image placeholders and
its `images` agree in number and order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the model will see it: already resized, so both sides are multiples of the
    family's cell.

    `key` names its content (equal keys, equal pixels); `width` and `height` are in pixels.
    """

    key: bytes
    width: int
    height: int


Item = tuple[str | Image, ...]
"""One side of a pair: texts and images in the order they were written. The empty item renders as
nothing."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of token ids, and the images whose placeholders stand in it, in order."""

    ids: tuple[int, ...]
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One pair as model input: `prefix` holds instruction and query, `suffix` the document and the
    answer's place.

    The model reads `prefix.ids + suffix.ids`. Pairs of one query share one `prefix` object, unless
    the query had to be cut.
    """

    prefix: Segment
    suffix: Segment
    truncated: bool

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prefix.ids + self.suffix.ids

    @property
    def images(self) -> tuple[Image, ...]:
        return self.prefix.images + self.suffix.images


TooLongPart = Literal["instruction", "query", "pair"]
"""What is too long: the instruction alone, instruction and query with its images, or the pair."""


@dataclass(frozen=True, slots=True)
class PairTooLong:
    """A pair of more than `limit` tokens, in the place of its `Prompt`, and the part that is to
    blame.

    How many tokens it has is not known: a long text is not read to its end.
    """

    limit: int
    part: TooLongPart


class Rendering(Protocol):
    """Renders documents for one question, some at a time; not for several threads at a time."""

    def prompts(self, documents: Sequence[Item]) -> list[Prompt | PairTooLong]:
        """One entry a document, in order."""
        ...
