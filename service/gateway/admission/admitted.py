"""Admitted work: the turns that are granted, and each request with the turns that it takes.

The module knows costs and a gate, nothing of the queue. Invariant: a small request takes the one
turn it was admitted with, a large one a turn for each slice; all turns are left, whatever ends the
request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from service.gateway.admission.fair_queue import Kind, Turn


class Inside:
    """The turns that are granted and not left yet, `turns` in number and `used` in cost, and the
    large requests."""

    def __init__(self) -> None:
        self.turns = 0
        self.used = 0
        self.large: dict[Turn, Admitted | None] = {}
        """Large requests by their first turn."""
        self._lanes: Counter[tuple[str, Kind]] = Counter()

    def add(self, turn: Turn) -> None:
        """Count a turn that is granted."""
        self._change(turn, 1, turn.cost)
        if turn.kind is Kind.FIRST:
            self.large[turn] = None

    def resize(self, turn: Turn, cost: int) -> None:
        """Count a turn with another cost."""
        self._change(turn, 0, cost - turn.cost)
        turn.cost = turn.stay.cost = cost

    def remove(self, turn: Turn) -> None:
        """Count a turn no more."""
        self._change(turn, -1, -turn.cost)

    def cost_of(self, scope: str, kind: Kind) -> int:
        """The cost of a scope's turns inside, small requests and slices of large ones apart."""
        return self._lanes[scope, kind.lane]

    def large_of(self, scope: str) -> int:
        """The number of large requests of a scope that are inside."""
        return sum(turn.scope == scope for turn in self.large)

    def has_place(self, scope: str, most: int, kept: int) -> bool:
        """Whether one more large request of a scope may be inside.

        A scope may have `most`; `kept` places are beyond that, half of them only for scopes with
        none inside.
        """
        own = self.large_of(scope)
        if not own:
            return len(self.large) < most + kept
        return own < most and len(self.large) < most + kept // 2

    def is_empty(self) -> bool:
        return not (self.turns or self.used or self.large or self._lanes)

    def _change(self, turn: Turn, turns: int, cost: int) -> None:
        self.turns += turns
        self.used += cost
        lane = (turn.scope, turn.kind.lane)
        self._lanes[lane] += cost
        if not self._lanes[lane]:
            del self._lanes[lane]


class Gate(Protocol):
    """Where turns are taken and left."""

    def slice_cost(self) -> int: ...
    async def next_turn(self, scope: str, cost: int) -> Turn: ...
    def resized(self, turn: Turn, cost: int) -> Turn: ...
    def leave(self, turn: Turn, computed: float | None) -> None: ...
    def note_known(self, cost: int) -> None: ...


class Admitted:
    """A request that is inside. It says in `computed` (0..1) how much of it was new work, once it
    has been answered."""

    def __init__(self, gate: Gate, turn: Turn, cost: int) -> None:
        self.computed: float | None = None
        self.cost = cost
        self.left = cost
        """The part of the cost that no turn has been taken for."""
        self._gate = gate
        self._turn = turn
        self._held = True
        self._credit = turn.cost

    @property
    def scope(self) -> str:
        return self._turn.scope

    @property
    def slice_cost(self) -> int:
        """The greatest cost that a turn should have."""
        return self._gate.slice_cost()

    @asynccontextmanager
    async def turn(self, cost: int) -> AsyncIterator[None]:
        """Wait for a turn of so much, and hold it while the context lasts."""
        self.left -= cost
        if self._turn.kind is Kind.WHOLE and cost <= self._credit:
            self._credit -= cost
            yield
            return
        if self._turn.kind is Kind.FIRST and self._held:
            self._held = False
            turn = self._gate.resized(self._turn, cost)
        else:
            turn = await self._gate.next_turn(self.scope, cost)
        computed = None
        try:
            yield
            computed = 1.0
        finally:
            self._gate.leave(turn, computed)

    def end(self) -> None:
        """Give back what is held. What no turn was taken for was known already."""
        known = self.left if self._turn.kind is Kind.FIRST and self.computed is not None else 0
        if self._held:
            self._turn.stay.cost += max(0, known - self._turn.cost)
            self._gate.leave(self._turn, self.computed)
        elif known > 0:
            self._gate.note_known(known)
