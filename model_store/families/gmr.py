"""GMR, the paper's general multimodal reranker on Qwen2.5-VL: the prompt, its limits, its label tokens.

Knows tokens and template, never pixels' values or a network. Invariant: the ids equal what the checkpoint's own chat template
and processor give for ordinary text, and what a user typed never changes the prompt's structure: control tokens are inserted by
id, and user text is joined to its neighbours as the template joins it, then encoded literally.

The template is that of the released lychee-rerank-mm (paper, section 3.1 and figure 6). Its published code writes it without
the line breaks and spaces that the Qwen3-VL report prints; both spellings are kept, and a checkpoint names its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from model_store.families.prompt import Image, Item, PairTooLong, Prompt, Segment
from model_store.families.qwen2_5_vl import CELL, image_tokens
from model_store.families.tokens import LiteralTokenizer

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
_HEAD = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
_TAIL = "<|im_end|>\n<|im_start|>assistant\n"

# Each spelling is (what depends on instruction and query, what depends on the document). A pair's two halves are encoded apart,
# which is exact: the pre-tokenizer always ends a piece between the line break and "<Document".
TEMPLATES: dict[str, tuple[str, str]] = {
    "code": (_HEAD + "<Instruct>: {instruction}<Query>:{query}\n", "<Document>:{document}" + _TAIL),
    "spaced": (_HEAD + "<Instruct>: {instruction}\n<Query>: {query}\n", "<Document>: {document}" + _TAIL),
}
DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
LABELS = ("yes", "no")

MIN_PIXELS = 4 * CELL * CELL
MAX_PIXELS = 1280 * CELL * CELL
MAX_TOKENS = 3200
"""The paper's maximum input length (section 5.1)."""


@dataclass(frozen=True, slots=True)
class _Control:
    id: int


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str


_Piece = str | Image | _Control


class Gmr:
    """Renders (instruction, query, document) triples of text, images, or both.

    Raises `TokenizerMismatch` at construction when a control token is missing or a label is not exactly one token.
    """

    name = "gmr"

    def __init__(self, tokenizer: LiteralTokenizer, *, template: str = "code", max_tokens: int = MAX_TOKENS) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        yes, no = (tokenizer.label(word) for word in LABELS)
        self._label_ids = (yes, no)
        self._vision_start = tokenizer.control("<|vision_start|>")
        self._image_pad = tokenizer.control("<|image_pad|>")
        self._vision_end = tokenizer.control("<|vision_end|>")
        self._prefix_form, self._suffix_form = (self._parse(form) for form in TEMPLATES[template])
        self._document_floor = max_tokens // 4

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
        """One prompt a document, in order. A pair over `max_tokens` is cut, or refused where `truncate` is off.

        Only text is cut, from its end: the document's first, then the query's, so that the document keeps a quarter of the
        budget. A query that is cut is cut alike for all documents that allow it, so that they go on sharing their prefix.
        """
        prefixes = _Prefixes(self, instruction, query)
        prefix = prefixes.whole
        suffixes = self._encode([_fill(self._suffix_form, document=document) for document in documents])
        prompts: list[Prompt | PairTooLong] = []
        for document, suffix in zip(documents, suffixes, strict=True):
            needed = len(prefix.ids) + len(suffix.ids)
            if needed <= self.max_tokens:
                prompts.append(Prompt(prefix, suffix, truncated=False))
            elif truncate and (shorter := self._shorten(prefixes, document, suffix)):
                prompts.append(shorter)
            else:
                prompts.append(PairTooLong(needed, self.max_tokens))
        return prompts

    def _shorten(self, prefixes: _Prefixes, document: Item, suffix: Segment) -> Prompt | None:
        room = max(self.max_tokens - len(prefixes.whole.ids), self._document_floor)
        suffix = self.cut(document, suffix, room, self.suffix)
        prefix = prefixes.whole
        if len(prefix.ids) + len(suffix.ids) > self.max_tokens:
            prefix = prefixes.within(self.max_tokens - max(len(suffix.ids), self._document_floor))
        fits = len(prefix.ids) + len(suffix.ids) <= self.max_tokens
        return Prompt(prefix, suffix, truncated=True) if fits else None

    def prefix(self, instruction: Item, query: Item) -> Segment:
        """The part of the prompt that all documents of a query share."""
        return self._encode([_fill(self._prefix_form, instruction=instruction, query=query)])[0]

    def suffix(self, document: Item) -> Segment:
        """The part of the prompt from the document to the answer's place."""
        return self._encode([_fill(self._suffix_form, document=document)])[0]

    def cut(self, item: Item, segment: Segment, limit: int, render: Callable[[Item], Segment]) -> Segment:
        """`render` of `item` without the end of its text, at most `limit` tokens if cutting text can reach that."""
        while (excess := len(segment.ids) - limit) > 0:
            shorter = self._without_end(item, excess)
            if shorter == item:
                break
            item, segment = shorter, render(shorter)
        return segment

    def _without_end(self, item: Item, excess: int) -> Item:
        """`item` with about `excess` tokens less text: the last text that has any is cut, images stay."""
        for place in reversed(range(len(item))):
            text = item[place]
            if isinstance(text, str) and text:
                tokens = len(self._tokenizer.encode([text])[0])
                return (*item[:place], self._tokenizer.cut(text, max(tokens - excess, 0)), *item[place + 1 :])
        return item

    def _parse(self, form: str) -> list[str | _Control | _Slot]:
        """A template as its literal texts, control ids and slots, in order."""
        pieces: list[str | _Control | _Slot] = []
        for text, slot, control in re.findall(r"(.*?)(?:\{(\w+)\}|(<\|\w+\|>)|$)", form, re.DOTALL):
            pieces += [text] * bool(text)
            pieces += [_Slot(slot)] * bool(slot)
            pieces += [_Control(self._tokenizer.control(control))] if control else []
        return pieces

    def _encode(self, filled: Sequence[Iterable[_Piece]]) -> list[Segment]:
        """Token ids of each row of pieces; all text runs of all rows go through the tokenizer in one batch."""
        rows = [list(_runs(pieces)) for pieces in filled]
        encoded = iter(self._tokenizer.encode([piece for row in rows for piece in row if isinstance(piece, str)]))
        return [self._segment(row, encoded) for row in rows]

    def _segment(self, row: Sequence[_Piece], encoded: Iterator[list[int]]) -> Segment:
        ids: list[int] = []
        images: list[Image] = []
        for piece in row:
            match piece:
                case str():
                    ids += next(encoded)
                case _Control(control):
                    ids.append(control)
                case Image():
                    ids += [self._vision_start, *[self._image_pad] * image_tokens(piece), self._vision_end]
                    images.append(piece)
        return Segment(tuple(ids), tuple(images))


class _Prefixes:
    """The prefix of one request, whole and, once somebody needs it, cut to a limit; each limit is worked out once."""

    def __init__(self, family: Gmr, instruction: Item, query: Item) -> None:
        self._family, self._instruction, self._query = family, instruction, query
        self._within: dict[int, Segment] = {}
        self.whole = family.prefix(instruction, query)

    def within(self, limit: int) -> Segment:
        if limit not in self._within:
            self._within[limit] = self._family.cut(
                self._query, self.whole, limit, lambda query: self._family.prefix(self._instruction, query)
            )
        return self._within[limit]


def _fill(form: Iterable[str | _Control | _Slot], **items: Item) -> Iterator[_Piece]:
    for piece in form:
        if isinstance(piece, _Slot):
            yield from items[piece.name]
        else:
            yield piece


def _runs(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """The same pieces, with neighbouring texts joined: the template joins them before it tokenizes."""
    for is_text, group in groupby(pieces, key=lambda piece: isinstance(piece, str)):
        if is_text:
            yield "".join(str(piece) for piece in group)
        else:
            yield from group
