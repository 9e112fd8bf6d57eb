"""The family seam: everything that differs between reranker models.

Engines, trainer, publisher, sizing and bench depend on a `Family`, not on a particular one.
Invariant: training and serving render prompts with the same object, so both read the same token
ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from model_store.families.prompt import Image, Item, NotRendered, Prompt, Rendering
from model_store.families.readout import ReadOut
from model_store.families.recognition import (
    Description,
    FolderFacts,
    NetworkFacts,
    Recognition,
)
from model_store.families.tokens import LiteralTokenizer
from model_store.manifest import Manifest

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


@dataclass(frozen=True, slots=True)
class SideRules:
    """The parts that a family reads on one side of a pair."""

    texts: bool = True
    max_images: int | None = None
    """None: any number."""
    mixed: bool = True
    """Text and images at once."""


class Family(Protocol):
    """One reranker as it is served: its prompt, its images and its read-out."""

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
    def default_instruction(self) -> str:
        """The instruction of calls without one."""
        ...

    @property
    def readouts(self) -> Sequence[ReadOut]:
        """Read-outs that a manifest may name: the default, then the one of contrastive learning."""
        ...

    @property
    def cacheable_side(self) -> CacheableSide:
        """The side that prompts begin with."""
        ...

    @property
    def takes_instruction(self) -> bool:
        """False where the prompt has no place for an instruction."""
        ...

    @property
    def query_side(self) -> SideRules:
        """The parts that a query may have."""
        ...

    @property
    def document_side(self) -> SideRules:
        """The parts that a document may have."""
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
    ) -> list[Prompt | NotRendered]:
        """A prompt or a refusal for each document, in order."""
        ...


class FamilyKind(Protocol):
    """A family before it is opened for a checkpoint: one file of this room has one of these."""

    @property
    def name(self) -> str:
        """The family as manifests state it."""
        ...

    @property
    def architectures(self) -> Sequence[str]:
        """Network adapters that it runs on, by name; empty for any causal decoder."""
        ...

    @property
    def readouts(self) -> Sequence[ReadOut]:
        """Read-outs that a manifest may name: the default, then the one of contrastive learning.

        Empty where the checkpoint's own files decide.
        """
        ...

    @property
    def default_max_tokens(self) -> int:
        """Tokens of a pair, where a manifest states no other limit."""
        ...

    @property
    def published(self) -> Mapping[str, Mapping[str, Any]]:
        """`config.json` of the models that its authors published, by name, as far as it has
        sizes."""
        ...

    def recognise(self, facts: FolderFacts) -> Recognition | None:
        """The reason why a folder without a manifest is of this family; None where it is not."""
        ...

    def describe(self, facts: FolderFacts) -> Description:
        """The manifest's fields for a folder that it recognises; raises `CheckpointUnusable`."""
        ...

    def open(
        self,
        manifest: Manifest,
        folder: Path,
        tokenizer: LiteralTokenizer,
        network: NetworkFacts,
        *,
        max_tokens: int | None = None,
    ) -> Family:
        """The family of a checkpoint; raises `CheckpointUnusable`.

        `max_tokens` is a lower limit than the manifest's, for training on shorter pairs.
        """
        ...
