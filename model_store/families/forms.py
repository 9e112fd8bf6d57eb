"""A half of a template as literal texts, control tokens, slots and joints, and a row of it with its
slots filled.

Depends on rows and on ids of control tokens, not on a tokenizer's pipeline. Invariant: texts that
are neighbours are joined before they are encoded, as a template joins them, unless a joint is
between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_store.families.prompt import Item
from model_store.families.rows import Part, Row, Run

_PIECES = re.compile(r"(.*?)(?:\{(\w+|\|)\}|(<\|\w+\|>|</?think>|<bos>)|$)", re.DOTALL)
_JOINT = "|"


# The representations of the three classes are part of every fingerprint.
@dataclass(frozen=True, slots=True, repr=False)
class Control:
    """A control token by its id."""

    id: int

    def __repr__(self) -> str:
        return f"_Control(id={self.id})"


@dataclass(frozen=True, slots=True, repr=False)
class Slot:
    """The place of a part of the pair: `instruction`, `query`, `document`, or the pair's
    `wording`."""

    name: str

    def __repr__(self) -> str:
        return f"_Slot(name={self.name!r})"


@dataclass(frozen=True, slots=True)
class Joint:
    """The border of two texts that are encoded apart, `{|}` in a template."""


Form = Sequence[str | Control | Slot | Joint]


def parsed(text: str, control: Callable[[str], int]) -> Form:
    """A template's half; `control` gives the id of a control token.

    A number in braces, such as `{100}`, is the id of a token that is no text by itself.
    """
    pieces: list[str | Control | Slot | Joint] = []
    for literal, slot, token in _PIECES.findall(text):
        if literal:
            pieces.append(literal)
        if slot.isdecimal():
            pieces.append(Control(int(slot)))
        elif slot:
            pieces.append(Joint() if slot == _JOINT else Slot(slot))
        if token:
            pieces.append(Control(control(token)))
    return pieces


def filled(form: Form, cut: str, **items: Item) -> Row:
    """The row of a half with its slots filled. Only texts of the slot `cut` may be cut."""
    row: list[Part] = []
    for piece in form:
        match piece:
            case str():
                _join(row, piece, may_cut=False)
            case Control(control):
                row.append(control)
            case Joint():
                row.append(Run(""))
            case Slot(name):
                for part in items[name]:
                    if isinstance(part, str):
                        _join(row, part, may_cut=name == cut)
                    else:
                        row.append(part)
    return row


def _join(row: list[Part], text: str, *, may_cut: bool) -> None:
    """Add a text to a row, and join it with the run at the row's end, if any."""
    run = row.pop() if row and isinstance(row[-1], Run) else Run("")
    assert isinstance(run, Run)
    row.append(run.then(text) if may_cut else run.then_fixed(text))
