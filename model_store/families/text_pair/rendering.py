"""Halves of a question's pairs, as a network takes them that a tokenizer's pairs are made for.

Depends on halves that are rendered, not on a tokenizer. Invariant: no prompt has an image, and none
ends in an empty half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from model_store.families.prompt import (
    Item,
    NotRendered,
    PairUnreadable,
    Prompt,
    Rendering,
    Segment,
)


class PairRendering:
    """Halves of a question's pairs as a network takes them: with types, and neither empty.

    A tokenizer that puts nothing around texts gives an empty document no token: its pair is the
    query alone, which then is the half that pairs do not share.
    """

    def __init__(self, rendering: Rendering, types: tuple[int, int]) -> None:
        self._rendering, self._types = rendering, types
        self._prefixes: dict[Segment, Segment] = {}

    def prompts(self, documents: Sequence[Item]) -> list[Prompt | NotRendered]:
        """One prompt for each document, in order."""
        found = self._rendering.prompts(documents)
        joined: list[Prompt | NotRendered] = []
        for document, prompt in zip(documents, found, strict=True):
            if not all(isinstance(part, str) for part in document):
                joined.append(PairUnreadable())
            elif isinstance(prompt, Prompt):
                joined.append(self._joined(prompt))
            else:
                joined.append(prompt)
        return joined

    def _joined(self, prompt: Prompt) -> Prompt | NotRendered:
        first, second = self._types
        prefix = self._prefixes.setdefault(prompt.prefix, _of_type(prompt.prefix, first))
        suffix = _of_type(prompt.suffix, second)
        if not suffix.ids:
            prefix, suffix = suffix, prefix
        if not suffix.ids:
            return PairUnreadable()
        return Prompt(prefix, suffix, prompt.truncated)


def _of_type(segment: Segment, kind: int) -> Segment:
    return replace(segment, types=(kind,) * len(segment.ids)) if kind else segment
