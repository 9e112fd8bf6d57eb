"""Probes of a chat template: conversations with marked texts, and the places that prompts show.

Each layout is rendered with a mark in the place of each text, with blanks and other characters
around the marks, and with each text blank or empty. Depends on rendered texts, not on tokens.
Invariant: places are those of every text: a prompt that depends on a text in another way than by
its emptiness and the blanks at its ends has none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.families.chat_template.layouts import SIDES, Kind, Layout, TextPart
from model_store.families.chat_template.pair_form import Place, Trim
from model_store.families.chat_template.template import Conversation, Rendered, TemplateFailed

_OPEN, _CLOSE, _KEPT = "\ue000", "\ue001", "\ue002"
MARK = re.compile(f"{_OPEN}([iqd])([0-9]+){_CLOSE}")
_SIDES_BY_LETTER = {side[0]: side for side in SIDES}
_LEFT, _RIGHT, _BLANK = " \n\t\u3000\x1f ", "\u2003\r \x0b\n ", "\n \t"
_ODD = (
    "Aa 'b' \"c\" \\ / & <d> [e] {f} {{ g }} {% h %} {# i #} %s {0} | \t\n\n e\u0301 \u00e9"
    " \u4e2d\u6587 \u200c \u200d \U0001f642 <|im_end|> </think> <script> http://x.example/y.png "
    + "word " * 800
    + "."
)
"""A text that most filters of Jinja would change."""


class Unreadable(Exception):
    """A layout that the template has no place for; the text is a clause."""


class Unfaithful(Exception):
    """The template's prompt depends on the texts themselves; the text is a clause."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The conversations by which one layout is learnt."""

    layout: Layout
    conversations: Sequence[Conversation]

    @classmethod
    def of(cls, layout: Layout, *, structured: bool) -> Probes:
        marks = {part: mark_of(part) for part in layout.texts}
        padded = {part: _LEFT + mark + _ODD + _RIGHT for part, mark in marks.items()}
        conversations = [
            layout.conversation(marks, structured=structured),
            layout.conversation(padded, structured=structured),
        ]
        for part in layout.texts:
            for text in (_BLANK, ""):
                changed = marks | {part: text}
                conversations.append(layout.conversation(changed, structured=structured))
        return cls(layout, conversations)


def places_of(
    layout: Layout,
    plain: Rendered,
    padded: Rendered,
    others: Sequence[Rendered | TemplateFailed],
) -> dict[TextPart, Place]:
    """The place of each text in a rendered prompt; an instruction may have none."""
    marks = [part_of(mark) for mark in MARK.finditer(plain.text)]
    literals = MARK.split(plain.text)[:: MARK.groups + 1]
    if any(_OPEN in literal or _CLOSE in literal for literal in literals):
        raise Unfaithful("it changes the texts of a pair")
    for text in layout.texts:
        if text[0] != "instruction" and text not in marks:
            raise Unreadable(f"it does not show the {text[0]}")

    trims = _trims(marks, literals, padded)
    places: dict[TextPart, Place] = {}
    for number, (side, index) in enumerate(layout.texts):
        left, right = trims.get((side, index), ("", ""))
        place = Place(side, index, left, right)
        blank = _blank(place, plain, others[2 * number], others[2 * number + 1])
        places[side, index] = Place(side, index, left, right, blank)
    return places


def _trims(
    marks: Sequence[TextPart], literals: Sequence[str], padded: Rendered
) -> dict[TextPart, tuple[Trim, Trim]]:
    """The ends of each text at which the template strips blanks."""
    changed = _ODD
    for old, new in dict.fromkeys(padded.replaces):
        changed = changed.replace(old, new)

    text, pattern = padded.text, re.escape(literals[0])
    for part, literal in zip(marks, literals[1:], strict=True):
        mark = mark_of(part)
        for odd in (_ODD, changed):
            text = text.replace(mark + odd, mark + _KEPT)
        core = re.escape(mark + _KEPT)
        pattern += f"({re.escape(_LEFT)})?{core}({re.escape(_RIGHT)})?{re.escape(literal)}"
    found = re.fullmatch(pattern, text)
    if not found:
        raise Unfaithful("it changes the texts of a pair, or the text around them")

    trims: dict[TextPart, tuple[Trim, Trim]] = {}
    for number, part in enumerate(marks):
        left: Trim = "" if found[2 * number + 1] else "all"
        right: Trim = "" if found[2 * number + 2] else "all"
        if trims.setdefault(part, (left, right)) != (left, right):
            raise Unfaithful("it shows a text twice in different ways")
    return trims


def _blank(
    place: Place,
    plain: Rendered,
    blank: Rendered | TemplateFailed,
    empty: Rendered | TemplateFailed,
) -> Kind:
    """The kind that a text of blanks counts as: a text, or an empty one."""
    filled = plain.text.replace(mark_of((place.side, place.part)), place.trimmed(_BLANK))
    if isinstance(blank, Rendered) and blank.text == filled:
        return "text"
    if isinstance(blank, Rendered) and isinstance(empty, Rendered) and blank.text == empty.text:
        return "empty"
    raise Unfaithful("it has a prompt of its own for a text of blanks")


def mark_of(part: TextPart) -> str:
    """The mark in the place of a text."""
    side, index = part
    return f"{_OPEN}{side[0]}{index}{_CLOSE}"


def part_of(mark: re.Match[str]) -> TextPart:
    """The text whose place a mark shows."""
    return _SIDES_BY_LETTER[mark[1]], int(mark[2])
