"""Computed parts: the part of prompts that workers compute, by model and scope, learned from
replies; the rest they have in their prefix caches.

Depends on the tokens of replies, not on documents or workers. Invariant: only prompts that begin
with the document are expected to be computed in part, `LEAST_PART` at least; a scope's part follows
from its own replies alone, and the number of parts that are kept is bounded.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from service.wire import WorkerInfo

LEAST_PART = 0.25
"""Work whose documents no worker has takes at most four times what it was admitted for, until the
first replies tell."""
FEW_TOKENS, MANY_TOKENS = 2_048, 16_384
"""Prompt tokens that weigh about two thirds in a mean. The part is the larger one of two means: it
rises with a few replies and falls with many."""
MAX_PARTS = 4_096
"""Models and scopes whose parts are kept, those that were used last."""

ExpectedPart = Callable[[], float]
"""The part of a cost that is expected to be computed, at the moment."""


@dataclass(slots=True)
class _Means:
    """The computed part, as means over few and over many tokens."""

    few: float = 1.0
    many: float = 1.0

    def add(self, part: float, tokens: int) -> None:
        self.few += (part - self.few) * -math.expm1(-tokens / FEW_TOKENS)
        self.many += (part - self.many) * -math.expm1(-tokens / MANY_TOKENS)


class ComputedParts:
    """The computed parts of the prompts of each model and scope (tenant)."""

    def __init__(self) -> None:
        self._means: OrderedDict[tuple[str, str], _Means] = OrderedDict()

    def expected(self, model: WorkerInfo, scope: str) -> float:
        """The part of a prompt that is expected to be computed, from `LEAST_PART` to 1."""
        means = self._means.get((model.model, scope))
        if means is None or model.cacheable_side != "document":
            return 1.0
        return max(LEAST_PART, means.few, means.many)

    def add(self, model: WorkerInfo, scope: str, prompt_tokens: int, reused_tokens: int) -> float:
        """Count the tokens of a reply; returns the part of them that was computed.

        Prompts of other models count as computed: their cost has the common beginning of a
        request's prompts once.
        """
        if model.cacheable_side != "document" or not prompt_tokens:
            return 1.0

        part = 1 - reused_tokens / prompt_tokens
        key = (model.model, scope)
        self._means.setdefault(key, _Means()).add(part, prompt_tokens)
        self._means.move_to_end(key)
        if len(self._means) > MAX_PARTS:
            self._means.popitem(last=False)
        return part


def everything() -> float:
    """The computed part where nothing is reused."""
    return 1.0


def expected_cost(cost: int, expected_part: ExpectedPart) -> int:
    """The cost of what is expected to be computed at the moment."""
    return max(1, int(cost * expected_part()))
