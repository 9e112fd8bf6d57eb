"""GMR, the paper's general multimodal reranker on Qwen2.5-VL: the prompt, its limits, its label
tokens.

Knows tokens and template, never pixels' values or a network. Invariant: the ids equal what the
checkpoint's own chat template and processor give for ordinary text, and what a user typed never
changes the prompt's structure: control tokens are inserted by id, and user text is joined to its
neighbours as the template joins it, then encoded literally.

The template is that of the released lychee-rerank-mm (paper, section 3.1 and figure 6). Its
published code writes it without the line breaks and spaces that the Qwen3-VL report prints; both
spellings are kept, and a checkpoint names its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.families.prompt import Item, PairTooLong, Prompt, Segment
from model_store.families.qwen2_5_vl import CELL
from model_store.families.renderer import Question, Renderer
from model_store.families.rows import ImageTokens, Part, Row, RowEncoder, Run
from model_store.families.tokens import LiteralTokenizer

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".'
)
_HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
_TAIL = "<|im_end|>\n<|im_start|>assistant\n"

# Each spelling is (what depends on instruction and query, what depends on the document). A pair's
# two halves are encoded apart, which is exact: the pre-tokenizer always ends a piece between the
# line break and "<Document".
TEMPLATES: dict[str, tuple[str, str]] = {
    "code": (_HEAD + "<Instruct>: {instruction}<Query>:{query}\n", "<Document>:{document}" + _TAIL),
    "spaced": (
        _HEAD + "<Instruct>: {instruction}\n<Query>: {query}\n",
        "<Document>: {document}" + _TAIL,
    ),
}
DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
LABELS = ("yes", "no")

MIN_PIXELS = 4 * CELL * CELL
MAX_PIXELS = 1280 * CELL * CELL
MAX_TOKENS = 3200
"""The paper's maximum input length (section 5.1)."""
_NO_LIMIT = 2**40


@dataclass(frozen=True, slots=True)
class _Control:
    id: int


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str


class Gmr:
    """Renders (instruction, query, document) triples of text, images, or both.

    `tokenizer` is what it encodes texts with.

    Raises `TokenizerMismatch` at construction when a control token is missing or a label is not
    exactly one token.
    """

    name = "gmr"

    def __init__(
        self, tokenizer: LiteralTokenizer, *, template: str = "code", max_tokens: int = MAX_TOKENS
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        yes, no = (tokenizer.label(word) for word in LABELS)
        self._label_ids = (yes, no)
        self._vision_start = tokenizer.control("<|vision_start|>")
        self._image_pad = tokenizer.control("<|image_pad|>")
        self._vision_end = tokenizer.control("<|vision_end|>")
        self._prefix_form, self._suffix_form = (self._parse(form) for form in TEMPLATES[template])
        images = ImageTokens(self._vision_start, self._image_pad, self._vision_end)
        self._encoder = RowEncoder(tokenizer, images, max_tokens)
        self._unbounded = RowEncoder(tokenizer, images, _NO_LIMIT)

    @property
    def label_ids(self) -> tuple[int, int]:
        """Vocabulary ids of (yes, no)."""
        return self._label_ids

    @property
    def image_token_id(self) -> int:
        """The id that every image token of a prompt carries."""
        return self._image_pad

    @property
    def fingerprint(self) -> str:
        """Of the prompt's fixed text: a change of wording is a change of model."""
        return hashlib.sha256(repr((self._prefix_form, self._suffix_form)).encode()).hexdigest()

    def render(
        self, instruction: Item, query: Item, documents: Sequence[Item], *, truncate: bool = True
    ) -> list[Prompt | PairTooLong]:
        """One prompt a document, in order. A pair over `max_tokens` is cut, or refused where
        `truncate` is off.

        Only text is cut, from its end: the document's first, then the query's, so that the document
        keeps a quarter of the budget. A query that is cut is cut alike for all documents that allow
        it, so that they go on sharing their prefix.
        """
        return self.renderer(instruction, query, truncate=truncate).prompts(documents)

    def renderer(self, instruction: Item, query: Item, *, truncate: bool = True) -> Renderer:
        """What renders documents for one question as `render` does, a few at a time."""
        question = Question(
            prefix=self._prefix_row(instruction, query),
            without_query=self._prefix_row(instruction, ()),
            suffix=self._suffix_row,
        )
        return Renderer(self._encoder, question, self.max_tokens, truncate=truncate)

    def prefix(self, instruction: Item, query: Item) -> Segment:
        """The part of the prompt that all documents of a query share, however long."""
        return self._whole(self._prefix_row(instruction, query))

    def suffix(self, document: Item) -> Segment:
        """The part of the prompt from the document to the answer's place, however long."""
        return self._whole(self._suffix_row(document))

    def _whole(self, row: Row) -> Segment:
        (segment,) = self._unbounded.segments([row])
        assert segment is not None
        return segment

    def _prefix_row(self, instruction: Item, query: Item) -> Row:
        return _filled(self._prefix_form, cut="query", instruction=instruction, query=query)

    def _suffix_row(self, document: Item) -> Row:
        return _filled(self._suffix_form, cut="document", document=document)

    def _parse(self, form: str) -> list[str | _Control | _Slot]:
        """A template as its literal texts, control ids and slots, in order."""
        pieces: list[str | _Control | _Slot] = []
        for text, slot, control in re.findall(r"(.*?)(?:\{(\w+)\}|(<\|\w+\|>)|$)", form, re.DOTALL):
            pieces += [text] * bool(text)
            pieces += [_Slot(slot)] * bool(slot)
            pieces += [_Control(self.tokenizer.control(control))] if control else []
        return pieces


def _filled(form: Sequence[str | _Control | _Slot], cut: str, **items: Item) -> Row:
    """A template's half with its slots filled. Neighbouring texts are joined: the template joins
    them before it tokenizes.

    Only texts of the slot `cut` may be cut.
    """
    row: list[Part] = []
    for piece in form:
        match piece:
            case str():
                _join(row, piece, may_cut=False)
            case _Control(control):
                row.append(control)
            case _Slot(name):
                for part in items[name]:
                    if isinstance(part, str):
                        _join(row, part, may_cut=name == cut)
                    else:
                        row.append(part)
    return row


def _join(row: list[Part], text: str, *, may_cut: bool) -> None:
    """Add a text to a row: to the run that the row ends with, if it does."""
    run = row.pop() if row and isinstance(row[-1], Run) else Run("")
    assert isinstance(run, Run)
    row.append(run.then(text) if may_cut else run.then_fixed(text))
