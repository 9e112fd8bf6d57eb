"""Families whose prompt is a template: control tokens, fixed text, and slots for what users send.

Depends on a tokenizer, never on pixels' values or a network. Invariant: what a user typed never
changes the prompt's structure: control tokens are inserted by id, and user text is joined to its
neighbours as the template joins it, then encoded literally.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from model_store.families.family import CacheableSide, ImageRules, SideRules
from model_store.families.forms import Slot, filled, parsed
from model_store.families.prompt import Item, NotRendered, Prompt, Rendering, Segment
from model_store.families.readout import ReadOut
from model_store.families.recognition import (
    Description,
    FolderFacts,
    NetworkFacts,
    Rank,
    Recognition,
)
from model_store.families.renderer import Question, Renderer
from model_store.families.rows import ImageTokens, Row, RowEncoder
from model_store.families.stated_readout import (
    default_readout,
    refuse_other_labels,
    stated_readout,
)
from model_store.families.tokens import LiteralTokenizer, TokenizerMismatch
from model_store.manifest import CheckpointUnusable, Manifest, PixelBounds

_NO_LIMIT = 2**40


@dataclass(frozen=True, slots=True)
class ImageTemplate:
    """The control tokens of an image in a template, and the sizes of images."""

    start: str
    placeholder: str
    end: str
    cell: int
    """Pixels of an image token's side."""
    pixels: PixelBounds
    """Bounds on an image's area where a checkpoint states none."""
    most_pixels: int | None = None
    """The largest area that a checkpoint may state; None: that of `pixels`."""


class TemplateFamily:
    """A family that renders (instruction, query, document) triples by a template.

    A subclass is constants alone. Each of its `templates` is two halves, of which one has the
    document and the other has query and instruction. The first half is the prompt's prefix. The two
    are encoded apart, which is exact where the pre-tokenizer always ends a piece between them.
    `{|}` stands where authors' code encodes two texts apart and joins their ids.

    Raises `TokenizerMismatch` at construction when a control token is missing or a label is not
    exactly one token.
    """

    name: ClassVar[str]
    architectures: ClassVar[Sequence[str]]
    templates: ClassVar[Mapping[str, tuple[str, str]]]
    """By name; the first is used for a folder without a manifest."""
    without_instruction: ClassVar[Mapping[str, str]] = {}
    """The half with the query for calls whose instruction is empty, by the template's name; the
    template's own half where there is none."""
    max_question_tokens: ClassVar[int | None] = None
    """Tokens of the half with the query, where authors' code cuts a longer one beside any document.
    It belongs to `default_max_tokens`, and shrinks with a lower limit."""
    readouts: ClassVar[Sequence[ReadOut]]
    """Those that a manifest may name; the first is the default."""
    default_instruction: ClassVar[str]
    """Empty where the templates have no place for an instruction."""
    default_max_tokens: ClassVar[int]
    """Tokens of a pair, where a manifest states no other limit."""
    default_transform: ClassVar[str] = "sigmoid"
    wordings: ClassVar[Mapping[str, str]] = {}
    """Texts for the slot `{wording}` of the document's half, by the name that `wording` chooses."""
    image_template: ClassVar[ImageTemplate | None]
    query_side: ClassVar[SideRules] = SideRules()
    document_side: ClassVar[SideRules] = SideRules()
    published_names: ClassVar[str] = ""
    """A regular expression, in lower case, that matches the names under which its authors publish
    models."""
    own_network: ClassVar[bool] = False
    """True where no model of another kind has the family's networks."""
    assumed: ClassVar[bool] = False
    """True for the family of a folder whose network alone is known."""
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """`config.json` of the models that its authors published, by name, as far as it has sizes."""

    def __init__(
        self,
        tokenizer: LiteralTokenizer,
        *,
        template: str | None = None,
        max_tokens: int | None = None,
        readout: ReadOut | None = None,
        pixels: PixelBounds | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = self.default_max_tokens if max_tokens is None else max_tokens
        self.readout = self.readouts[0] if readout is None else readout
        self.label_ids = tuple(tokenizer.label(word) for word in self.readout.labels)

        self.images = self._image_rules(pixels)
        image_tokens = self._image_tokens()
        self._encoder = RowEncoder(tokenizer, image_tokens, self.max_tokens)
        self._unbounded = RowEncoder(tokenizer, image_tokens, _NO_LIMIT)

        name = template or next(iter(self.templates))
        halves = self.templates[name]
        self._prefix_form, self._suffix_form = (parsed(half, tokenizer.control) for half in halves)
        self._document_first = Slot("document") in self._prefix_form
        bare = self.without_instruction.get(name)
        self._bare_form = None if bare is None else parsed(bare, tokenizer.control)

    @classmethod
    def recognise(cls, facts: FolderFacts) -> Recognition | None:
        """Recognised by name or by the network."""
        if facts.network.architecture not in cls.architectures:
            return None
        if cls.published_names and (recognition := facts.is_named(cls.published_names)):
            return recognition
        if cls.own_network:
            return Recognition(Rank.DESCRIBED, "its network is this family's own")
        if cls.assumed:
            return Recognition(Rank.ASSUMED, "its network is one that this family runs on")
        return None

    @classmethod
    def describe(cls, facts: FolderFacts) -> Description:
        """The family's defaults."""
        return Description(
            template=next(iter(cls.templates)),
            default_instruction=cls.default_instruction,
            max_tokens=cls.default_max_tokens,
            pixels=cls.image_template.pixels if cls.image_template else None,
            most_pixels=cls.image_template.most_pixels if cls.image_template else None,
            read_out=default_readout(facts.network.architecture),
            transform=cls.default_transform,
        )

    @classmethod
    def open(
        cls,
        manifest: Manifest,
        folder: Path,
        tokenizer: LiteralTokenizer,
        network: NetworkFacts,
        *,
        max_tokens: int | None = None,
    ) -> TemplateFamily:
        """The family of a checkpoint; raises `CheckpointUnusable`."""
        if manifest.template not in cls.templates:
            raise CheckpointUnusable(
                f"{manifest.name}: the template {manifest.template!r} is not known."
            )
        if (manifest.pixels is None) != (cls.image_template is None):
            states, reads = ("no", "images") if manifest.pixels is None else ("some", "text only")
            raise CheckpointUnusable(
                f"{manifest.name}: its manifest states {states} pixel bounds, and the family"
                f" {cls.name} reads {reads}."
            )

        readout = stated_readout(manifest, cls.name, cls.readouts, network.architecture)
        try:
            family = cls(
                tokenizer,
                template=manifest.template,
                max_tokens=manifest.max_tokens if max_tokens is None else max_tokens,
                readout=readout,
                pixels=manifest.pixels,
            )
        except (TokenizerMismatch, ValueError) as error:
            raise CheckpointUnusable(
                f"{manifest.name}: its tokenizer does not fit the family {cls.name}: {error}."
            ) from None
        if not manifest.read_out:
            refuse_other_labels(manifest.name, folder, cls.name, family.label_ids)
        return family

    @classmethod
    def arranged(cls, item: Item) -> Item:
        """One side's parts in the order in which the prompt has them: that of the request."""
        return item

    @classmethod
    def wording(cls, query: Item, document: Item) -> str:
        """The name of a pair's wording, where the document's half has a slot for it: the first."""
        return next(iter(cls.wordings))

    @property
    def cacheable_side(self) -> CacheableSide:
        """The side that prompts begin with."""
        return "document" if self._document_first else "query"

    @property
    def takes_instruction(self) -> bool:
        """False where the template has no place for an instruction."""
        return Slot("instruction") in (*self._prefix_form, *self._suffix_form)

    @property
    def image_token_id(self) -> int | None:
        """Id of every placeholder of an image; None where the family reads text only."""
        return self.images.token_id if self.images else None

    @property
    def fingerprint(self) -> str:
        """Digest of the prompt's fixed text, since a model with another wording is another one."""
        fixed: tuple[object, ...] = (self._prefix_form, self._suffix_form)
        if self._bare_form is not None:
            fixed = (*fixed, self._bare_form)
        if self.wordings:
            fixed = (*fixed, sorted(self.wordings.items()))
        return hashlib.sha256(repr(fixed).encode()).hexdigest()

    def render(
        self, instruction: Item, query: Item, documents: Sequence[Item], *, truncate: bool = True
    ) -> list[Prompt | NotRendered]:
        """A prompt or a refusal for each document, in order.

        A pair of more than `max_tokens` is cut, or refused where `truncate` is off. Only text is
        cut, from its end: the document's first, then the query's, so that the document keeps a
        quarter of the budget. A query is cut in the same way for all documents that allow it, so
        that they still share their prefix.
        """
        return list(self.renderer(instruction, query, truncate=truncate).prompts(documents))

    def renderer(self, instruction: Item, query: Item, *, truncate: bool = True) -> Rendering:
        """An object that renders the documents of one question as `render` does, some at a time."""
        question = Question(
            row=self._question_row(instruction, query),
            without_query=self._question_row(instruction, ()),
            document_row=partial(self._document_row, query),
            document_first=self._document_first,
            max_tokens=self._question_limit,
        )
        return Renderer(self._encoder, question, self.max_tokens, truncate=truncate)

    def question(self, instruction: Item, query: Item) -> Segment:
        """The half of the prompt that all documents of a query share, without a limit."""
        return self._uncut(self._question_row(instruction, query))

    def document(self, document: Item, query: Item = ()) -> Segment:
        """The half with the document, without a limit; `query` may decide its wording."""
        return self._uncut(self._document_row(query, document))

    def _uncut(self, row: Row) -> Segment:
        (segment,) = self._unbounded.segments([row])
        assert segment is not None
        return segment

    @property
    def _question_limit(self) -> int | None:
        if self.max_question_tokens is None:
            return None
        return self.max_question_tokens * self.max_tokens // self.default_max_tokens

    def _question_row(self, instruction: Item, query: Item) -> Row:
        form = self._suffix_form if self._document_first else self._prefix_form
        if self._bare_form is not None and not any(instruction):
            form = self._bare_form
        return filled(form, cut="query", instruction=instruction, query=self.arranged(query))

    def _document_row(self, query: Item, document: Item) -> Row:
        form = self._prefix_form if self._document_first else self._suffix_form
        wording: Item = ()
        if self.wordings:
            wording = (self.wordings[self.wording(query, document)],)
        return filled(form, cut="document", document=self.arranged(document), wording=wording)

    def _image_rules(self, pixels: PixelBounds | None) -> ImageRules | None:
        template = self.image_template
        if template is None:
            return None
        bounds = template.pixels if pixels is None else pixels
        return ImageRules(
            template.cell,
            bounds.min_pixels,
            bounds.max_pixels,
            self.tokenizer.control(template.placeholder),
        )

    def _image_tokens(self) -> ImageTokens | None:
        template = self.image_template
        if template is None or self.images is None:
            return None
        start, end = self.tokenizer.control(template.start), self.tokenizer.control(template.end)
        return ImageTokens(start, end, self.images)
