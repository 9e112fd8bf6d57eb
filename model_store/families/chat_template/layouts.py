"""The layout of a pair, which is what a prompt depends on beside the texts, and its probes.

Depends on items, not on templates or tokens. Invariant: two pairs of one layout have the same
prompt but for their texts, images and the blanks at the ends of texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from model_store.families.chat_template.template import Content, Conversation
from model_store.families.prompt import Item

Side = Literal["instruction", "query", "document"]
SIDES: tuple[Side, ...] = ("instruction", "query", "document")
_ROLES: Mapping[Side, str] = {"instruction": "system", "query": "query", "document": "document"}
Kind = Literal["text", "empty", "image"]
TextPart = tuple[Side, int]
"""A text of the pair by its side and its index among the side's parts."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The kinds of a pair's parts; no message is sent for an instruction without parts."""

    instruction: tuple[Kind, ...] = ()
    query: tuple[Kind, ...] = ("text",)
    document: tuple[Kind, ...] = ("text",)

    def kinds(self, side: Side) -> tuple[Kind, ...]:
        """The kinds of one side's parts."""
        kinds: tuple[Kind, ...] = getattr(self, side)
        return kinds

    @property
    def parts(self) -> int:
        """The number of parts of both sides."""
        return len(self.query) + len(self.document)

    @property
    def texts(self) -> list[TextPart]:
        """The parts that are texts, empty ones left out."""
        return self._parts("text")

    @property
    def images(self) -> list[TextPart]:
        """The parts that are images, in the order of messages."""
        return self._parts("image")

    def with_empty(self, part: TextPart) -> Layout:
        """The layout in which one text is empty."""
        side, index = part
        kinds = list(self.kinds(side))
        kinds[index] = "empty"
        return replace(self, **{side: tuple(kinds)})

    def conversation(self, texts: Mapping[TextPart, str], *, structured: bool) -> Conversation:
        """The messages of a pair with these texts."""
        messages: list[tuple[str, Content]] = []
        for side in SIDES:
            kinds = self.kinds(side)
            if not kinds and side == "instruction":
                continue
            parts: list[str | None] = []
            for index, kind in enumerate(kinds):
                parts.append(None if kind == "image" else texts.get((side, index), ""))
            messages.append((_ROLES[side], parts if structured else _flat(parts)))
        return messages

    def _parts(self, kind: Kind) -> list[TextPart]:
        parts: list[TextPart] = []
        for side in SIDES:
            for index, own in enumerate(self.kinds(side)):
                if own == kind:
                    parts.append((side, index))
        return parts


def side_kinds(item: Item) -> tuple[Kind, ...]:
    """The kinds of an item's parts. An item without parts is an empty text."""
    kinds: list[Kind] = []
    for part in item or ("",):
        if isinstance(part, str):
            kinds.append("text" if part else "empty")
        else:
            kinds.append("image")
    return tuple(kinds)


def usual(*, images: bool) -> Iterator[Layout]:
    """Layouts that most pairs have, rendered before the first call."""
    kinds: list[tuple[Kind, ...]] = [("text",), ("empty",)]
    if images:
        kinds += [("image",), ("text", "image"), ("image", "text"), ("image", "image")]
    instructions: Sequence[tuple[Kind, ...]] = ((), ("text",))
    for instruction in instructions:
        for query in kinds:
            for document in kinds:
                yield Layout(instruction, query, document)


def _flat(parts: Sequence[str | None]) -> Content:
    """A side as one text. Images have no place in it."""
    return "".join(part for part in parts if part is not None)
