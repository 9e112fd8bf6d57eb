"""A CrossEncoder with a chat template as it is served: prompts by layout, images, read-out.

Depends on a template's forms and a tokenizer, not on files. Invariant: for texts without control
tokens the ids equal those of sentence-transformers' `preprocess`, and what a user typed never
changes the prompt's structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_store.families.chat_template.pair_forms import PairForms
from model_store.families.chat_template.pair_rendering import PairRendering
from model_store.families.family import CacheableSide, ImageRules, SideRules
from model_store.families.prompt import Item, NotRendered, Prompt, Rendering
from model_store.families.readout import ReadOut
from model_store.families.rows import ImageTokens, RowEncoder
from model_store.families.tokens import LiteralTokenizer

NAME = "sentence-transformers"


@dataclass(frozen=True)
class Sides:
    """The abilities of a template that the service must know before a call."""

    query: SideRules
    document: SideRules
    takes_instruction: bool
    begins_with: CacheableSide


class CrossEncoderFamily:
    """A checkpoint's chat template around its tokenizer."""

    name = NAME

    def __init__(
        self,
        tokenizer: LiteralTokenizer,
        forms: PairForms,
        sides: Sides,
        *,
        readout: ReadOut,
        label_ids: tuple[int, ...],
        images: ImageRules | None,
        max_tokens: int,
        default_instruction: str,
        fingerprint: str,
    ) -> None:
        self.tokenizer, self.images = tokenizer, images
        self.readout, self.readouts = readout, (readout,)
        self.label_ids = label_ids
        self.max_tokens, self.default_instruction = max_tokens, default_instruction
        self.fingerprint = fingerprint
        self._forms, self._sides = forms, sides
        tokens = None if images is None else ImageTokens(None, None, images)
        self._encoder = RowEncoder(tokenizer, tokens, max_tokens)

    @property
    def cacheable_side(self) -> CacheableSide:
        """The side that prompts begin with."""
        return self._sides.begins_with

    @property
    def takes_instruction(self) -> bool:
        """False where the template does not show the prompt of sentence-transformers."""
        return self._sides.takes_instruction

    @property
    def query_side(self) -> SideRules:
        """The parts that the template shows of a query."""
        return self._sides.query

    @property
    def document_side(self) -> SideRules:
        """The parts that the template shows of a document."""
        return self._sides.document

    @property
    def image_token_id(self) -> int | None:
        """Id of every placeholder of an image; None where the network reads text only."""
        return self.images.token_id if self.images else None

    def render(
        self, instruction: Item, query: Item, documents: Sequence[Item], *, truncate: bool = True
    ) -> list[Prompt | NotRendered]:
        """A prompt or a refusal for each document, in order."""
        return list(self.renderer(instruction, query, truncate=truncate).prompts(documents))

    def renderer(self, instruction: Item, query: Item, *, truncate: bool = True) -> Rendering:
        """An object that renders the documents of one question, some at a time."""
        text = "".join(part for part in instruction if isinstance(part, str))
        if not self.takes_instruction:
            # the template may still ask whether there is one
            text = self.default_instruction
        return PairRendering(
            self._forms,
            self._encoder,
            self.max_tokens,
            (text,) if text else (),
            query or ("",),
            truncate=truncate,
        )
