"""The family seam: what differs between reranker models, and who may ask for it.

Gateway, worker, engines, trainer and publisher depend on a `Family`, never on one of them by name.
Invariant: training and serving use the same object, so both read the same token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from model_store.families.prompt import Image, Item, PairTooLong, Prompt, Rendering
from model_store.families.readout import ReadOut
from model_store.families.tokens import LiteralTokenizer

CacheableSide = Literal["query", "document", "none"]


@dataclass(frozen=True, slots=True)
class ImageRules:
    """The sizes of images that a family reads, and the tokens that stand for them."""

    cell: int
    """Both sides of an image are multiples of this many pixels; each cell is one token."""
    min_pixels: int
    max_pixels: int
    token_id: int
    """Id of every placeholder of an image in a prompt."""

    def tokens(self, image: Image) -> int:
        """Number of placeholders of an image."""
        return (image.width // self.cell) * (image.height // self.cell)


class Family(Protocol):
    """One kind of reranker: its prompt, its images and its read-out."""

    tokenizer: LiteralTokenizer
    max_tokens: int
    """Tokens of a pair at most."""
    images: ImageRules | None
    """None: the family reads text only."""
    readout: ReadOut
    label_ids: tuple[int, ...]
    """Vocabulary ids of the read-out's labels, in their order."""

    @property
    def name(self) -> str: ...

    @property
    def architecture(self) -> str:
        """The network adapter that engines and trainer use."""
        ...

    @property
    def default_instruction(self) -> str: ...

    @property
    def readouts(self) -> tuple[ReadOut, ...]:
        """Read-outs that a manifest may name: the default, then the one of contrastive learning."""
        ...

    @property
    def cacheable_side(self) -> CacheableSide:
        """The side that a causal prompt begins with, so that its keys and values serve several
        pairs."""
        ...

    @property
    def image_token_id(self) -> int | None:
        """Id of every placeholder of an image; None where the family reads text only."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of the prompt's fixed text: another wording is another model."""
        ...

    def renderer(self, instruction: Item, query: Item, *, truncate: bool = True) -> Rendering:
        """An object that renders a question's documents, a few at a time."""
        ...

    def render(
        self, instruction: Item, query: Item, documents: Sequence[Item], *, truncate: bool = True
    ) -> list[Prompt | PairTooLong]:
        """All documents at once: one entry a document, in order."""
        ...
