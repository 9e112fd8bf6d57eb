"""The family seam: everything that differs between reranker models.

Engines, trainer, publisher, sizing and bench depend on a `Family`, not on a particular one.
Invariant: training and serving render prompts with the same object, so both read the same token
ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from model_store.families.prompt import Image, Item, PairTooLong, Prompt, Rendering
from model_store.families.readout import ReadOut
from model_store.families.tokens import LiteralTokenizer

CacheableSide = Literal["query", "document", "none"]
"""The side that a causal prompt begins with, so that pairs can share its keys and values."""


@dataclass(frozen=True, slots=True)
class ImageRules:
    """The sizes of images that a family reads, and the number of their tokens."""

    cell: int
    """Pixels of a cell's side. An image is a grid of cells, and each cell is one token."""
    min_pixels: int
    max_pixels: int
    """Bounds on an image's area."""
    token_id: int
    """Id of every placeholder of an image in a prompt."""

    def tokens(self, image: Image) -> int:
        """Number of placeholders of an image."""
        return (image.width // self.cell) * (image.height // self.cell)


class Family(Protocol):
    """One kind of reranker: its prompt, its images and its read-out."""

    tokenizer: LiteralTokenizer
    max_tokens: int
    """The limit of a pair's tokens."""
    images: ImageRules | None
    """None: the family reads text only."""
    readout: ReadOut
    label_ids: tuple[int, ...]
    """Vocabulary ids of the read-out's labels, in their order."""

    @property
    def name(self) -> str:
        """The family as manifests state it."""
        ...

    @property
    def architecture(self) -> str:
        """The network adapter that engines and trainer use."""
        ...

    @property
    def default_instruction(self) -> str:
        """The instruction of calls without one."""
        ...

    @property
    def readouts(self) -> tuple[ReadOut, ...]:
        """Read-outs that a manifest may name: the default, then the one of contrastive learning."""
        ...

    @property
    def cacheable_side(self) -> CacheableSide:
        """The side that prompts begin with."""
        ...

    @property
    def image_token_id(self) -> int | None:
        """Id of every placeholder of an image; None where the family reads text only."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of the prompt's fixed text, since a model with another wording is another one."""
        ...

    def renderer(self, instruction: Item, query: Item, *, truncate: bool = True) -> Rendering:
        """An object that renders the documents of one question, some at a time."""
        ...

    def render(
        self, instruction: Item, query: Item, documents: Sequence[Item], *, truncate: bool = True
    ) -> list[Prompt | PairTooLong]:
        """A prompt or a refusal for each document, in order."""
        ...
