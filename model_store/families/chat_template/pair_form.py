"""The form of a pair's prompt: fixed text, control tokens, and places of texts and images.

Depends on tokens and items, not on templates. Invariant: the two halves of a form are joined where
the tokenizer always ends a token, so that they can be encoded apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import regex

from model_store.families.chat_template.layouts import Kind, Side
from model_store.families.family import CacheableSide
from model_store.families.forms import Control
from model_store.families.prompt import Item
from model_store.families.rows import Part, Row, Run

Trim = Literal["", "space", "all"]
"""Blanks that are taken from an end of a text: none, those that control tokens take (Unicode's
White_Space), or those of Python's `strip`, which are more."""
_LEADING = regex.compile(r"^\p{White_Space}+")
_TRAILING = regex.compile(r"\p{White_Space}+$")
_CONTEXT = 16
"""Characters of fixed text that a joint is judged by on either side."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a text of the pair."""

    side: Side
    part: int
    left: Trim = ""
    right: Trim = ""
    blank: Kind = "text"
    """The kind that a text of blanks alone counts as."""

    def trimmed(self, text: str) -> str:
        """A text as the prompt has it."""
        match self.left:
            case "all":
                text = text.lstrip()
            case "space":
                text = _LEADING.sub("", text)
        match self.right:
            case "all":
                text = text.rstrip()
            case "space":
                text = _TRAILING.sub("", text)
        return text


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """The place of an image of the pair."""

    side: Side
    part: int


Element = str | Control | Place | ImagePlace
"""Of neighbouring texts each begins where a piece of the pre-tokenizer always begins."""
Elements = tuple[Element, ...]
EndsPiece = Callable[[str, str], bool]
"""A tokenizer's answer whether texts can be encoded apart between two fixed texts."""


@dataclass(frozen=True, slots=True)
class PairForm:
    """A prompt in two halves; `first` is empty where the two sides cannot be told apart."""

    first: Elements
    second: Elements
    begins_with: CacheableSide

    @property
    def elements(self) -> Elements:
        """Both halves."""
        return self.first + self.second

    @property
    def question(self) -> Elements:
        """The half that all documents of a question share; empty where there is none."""
        return self.second if self.begins_with == "document" else self.first

    @property
    def document(self) -> Elements:
        """The half with the document; all elements where the halves cannot be told apart."""
        return self.first if self.begins_with == "document" else self.second

    @property
    def places(self) -> Mapping[tuple[Side, int], Place]:
        """The places of texts by side and part."""
        return {
            (element.side, element.part): element
            for element in self.elements
            if isinstance(element, Place)
        }


def halved(elements: Sequence[Element], ends_piece: EndsPiece) -> PairForm:
    """The form of a prompt's elements, in halves as far as the order of its sides allows.

    The halves part at the joint that is nearest to the question's texts and images. There is a
    joint beside every control token and image, and in fixed text between a line break and a
    character that is no blank, where the pre-tokenizer ends a piece.
    """
    parted: list[Element] = []
    for element in elements:
        parted += _parted(element, ends_piece) if isinstance(element, str) else [element]
    whole = tuple(parted)

    query = _indexes(whole, "query")
    question = sorted([*_indexes(whole, "instruction"), *query])
    document = _indexes(whole, "document") or [len(whole)]
    if question and question[-1] < document[0]:
        for joint in range(question[-1] + 1, document[0] + 1):
            if joint < len(whole) and _is_joint(whole, joint):
                return PairForm(whole[:joint], whole[joint:], "query")
    if query and document[-1] < query[0]:
        # an instruction before the document is in its half
        later = [index for index in question if index > document[-1]]
        for joint in range(later[0], document[-1], -1):
            if _is_joint(whole, joint):
                return PairForm(whole[:joint], whole[joint:], "document")
    return PairForm((), whole, "none")


def row_of(elements: Elements, items: Mapping[Side, Item], cut: Side | None) -> Row:
    """The row of a half with its places filled.

    Only texts of the side `cut` may be cut, and of those only the ones that the half has once. A
    missing item leaves its places empty.
    """
    often = _repeated(elements)
    row: list[Part] = []
    for element in elements:
        match element:
            case str():
                _join(row, element, may_cut=False)
            case Control(number):
                row.append(number)
            case Place(side, part):
                text = items[side][part] if part < len(items[side]) else ""
                assert isinstance(text, str)
                may_cut = side == cut and (side, part) not in often
                _join(row, element.trimmed(text), may_cut=may_cut)
            case ImagePlace(side, part):
                if part < len(items[side]):
                    image = items[side][part]
                    assert not isinstance(image, str)
                    row.append(image)
    return row


def _join(row: list[Part], text: str, *, may_cut: bool) -> None:
    """Add a text to a row, and join it with the run at the row's end, if any.

    Fixed text between two texts of a side is cut with them.
    """
    run = row.pop() if row and isinstance(row[-1], Run) else Run("")
    assert isinstance(run, Run)
    row.append(Run(run.before, run.text + run.after + text) if may_cut else run.then_fixed(text))


def _repeated(elements: Elements) -> set[tuple[Side, int]]:
    seen: set[tuple[Side, int]] = set()
    often: set[tuple[Side, int]] = set()
    for element in elements:
        if isinstance(element, Place):
            key = (element.side, element.part)
            (often if key in seen else seen).add(key)
    return often


def _indexes(elements: Elements, side: Side) -> list[int]:
    """Indexes of the places of a side's texts and images."""
    indexes: list[int] = []
    for index, element in enumerate(elements):
        if isinstance(element, Place | ImagePlace) and element.side == side:
            indexes.append(index)
    return indexes


def _is_joint(elements: Elements, index: int) -> bool:
    """True where no token reaches over the border before `elements[index]`."""
    if not 0 < index < len(elements):
        return True
    before, after = elements[index - 1], elements[index]
    if isinstance(before, Control | ImagePlace) or isinstance(after, Control | ImagePlace):
        return True
    return isinstance(before, str) and isinstance(after, str)


def _parted(text: str, ends_piece: EndsPiece) -> list[Element]:
    """A fixed text at its joints."""
    parts: list[Element] = []
    start = 0
    for index in range(1, len(text)):
        left, right = text[max(start, index - _CONTEXT) : index], text[index : index + _CONTEXT]
        if ends_piece(left, right):
            parts.append(text[start:index])
            start = index
    return [*parts, text[start:]]
