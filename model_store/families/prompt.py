"""The input and output types of every family: items and prompts.

Depends on neither templates nor tokenizers nor networks. Invariant: a `Segment`'s image
placeholders and its `images` agree in number and order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the size that the model reads: both sides are multiples of the family's cell.

    `key` identifies its content: equal keys have equal pixels. `width` and `height` are in pixels.
    """

    key: bytes
    width: int
    height: int


Item = tuple[str | Image, ...]
"""One side of a pair: texts and images in the order of the request. An empty item renders as an
empty text."""


def images_first(item: Item) -> Item:
    """The images of an item, then its texts, each kind in the order of the request."""
    images = [part for part in item if isinstance(part, Image)]
    texts = [part for part in item if isinstance(part, str)]
    return (*images, *texts)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of token ids, and the images whose placeholders it contains, in order."""

    ids: tuple[int, ...]
    images: tuple[Image, ...] = ()
    types: tuple[int, ...] = ()
    """Each token's type (BERT's segment): 0 for the first side, 1 for the second. Empty: all 0."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One pair as model input, in the two halves that were encoded apart.

    `prefix` has the side that the family's prompt begins with (`Family.cacheable_side`): the query
    with its instruction, or the document. The model reads `prefix.ids + suffix.ids`, and its answer
    follows the last id. Pairs of one query share one object for the query's half, unless the query
    was cut.
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

    @property
    def types(self) -> tuple[int, ...]:
        """The tokens' types; empty where all are 0."""
        if not self.prefix.types and not self.suffix.types:
            return ()
        first = self.prefix.types or (0,) * len(self.prefix.ids)
        return first + (self.suffix.types or (0,) * len(self.suffix.ids))


TooLongPart = Literal["instruction", "query", "pair"]
"""The part that is too long: the instruction alone, instruction and query together, or the pair."""


@dataclass(frozen=True, slots=True)
class PairTooLong:
    """The result instead of a `Prompt` for a pair of more than `limit` tokens.

    It does not have the pair's length, because a long text is not read to its end.
    """

    limit: int
    part: TooLongPart


@dataclass(frozen=True, slots=True)
class PairUnreadable:
    """The result instead of a `Prompt` for a pair with parts that the prompt has no place for."""


NotRendered = PairTooLong | PairUnreadable


class Rendering(Protocol):
    """Renders the documents of one question, some at a time. It serves one thread at a time."""

    def prompts(self, documents: Sequence[Item]) -> Sequence[Prompt | NotRendered]:
        """A prompt or a refusal for each document, in order."""
        ...
