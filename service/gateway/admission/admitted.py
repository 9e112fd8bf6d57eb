"""Admitted work: the turns that are granted, and each admitted request with the turns that it
takes.

Depends on costs and on a gate that grants turns, not on the queue. Invariant: a small request takes
the one turn that it was admitted with, a large one a turn for each slice; all turns are given back,
however the request ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from service.gateway.admission.computed_parts import ExpectedPart, everything, expected_cost
from service.gateway.admission.fair_queue import Kind, Turn


class Inside:
    """The turns that are granted and not yet given back, `turns` in number and `used` in cost, and
    the large requests that are admitted."""

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
        """Give a turn another cost."""
        self._change(turn, 0, cost - turn.cost)
        turn.cost = turn.ticket.cost = cost

    def remove(self, turn: Turn) -> None:
        """Count a turn that is given back."""
        self._change(turn, -1, -turn.cost)

    def cost_of(self, scope: str, kind: Kind) -> int:
        """The cost of a scope's turns inside, those of small requests and of slices apart."""
        return self._lanes[scope, kind.lane]

    def large_of(self, scope: str) -> int:
        """The number of large requests of a scope that are inside."""
        return sum(turn.scope == scope for turn in self.large)

    def has_place(self, scope: str, places: int, kept: int) -> bool:
        """True if one more large request of a scope may enter.

        A scope may have `places` of them. `kept` places are beyond that, half of them only for
        scopes with none inside.
        """
        own = self.large_of(scope)
        if not own:
            return len(self.large) < places + kept
        return own < places and len(self.large) < places + kept // 2

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
    """Grants turns and takes them back."""

    def slice_cost(self) -> int: ...
    async def next_turn(self, scope: str, price: Callable[[], int]) -> Turn: ...
    def resize(self, turn: Turn, cost: int) -> None: ...
    def leave(self, turn: Turn, computed: float | None) -> None: ...
    def add_cached(self, cost: int) -> None: ...


@dataclass(slots=True)
class Work:
    """The work of a turn. Set `computed` to the computed part of its cost (0..1) once it is known;
    the rest was reused."""

    computed: float = 1.0


class Admitted:
    """A request that is admitted. Set `computed` to the computed part of its work (0..1) once it
    has been answered; the rest was cached.

    Costs are those of work that is computed in full. A turn is taken for the part of them that
    `expected_part` returns at that moment, and is measured by what was computed.
    """

    is_background = False
    prefixes_a_slice = 8
    """The cost of a slice may be this many times that of its prefix: an engine without a prefix
    cache computes the prefix again for each slice."""

    def __init__(
        self, gate: Gate, turn: Turn, cost: int, expected_part: ExpectedPart = everything
    ) -> None:
        self.computed: float | None = None
        self.expected_part = expected_part
        self._gate = gate
        self._turn = turn
        self._holds_turn = True
        self._cost = self._cost_left = self._turn_left = cost
        self._reused = 0.0

    @property
    def scope(self) -> str:
        return self._turn.scope

    @property
    def slice_cost(self) -> int:
        """The cost that a turn should have at most."""
        return int(self._gate.slice_cost() / self.expected_part())

    @property
    def left(self) -> int:
        """The expected cost that no turn has been taken for."""
        return int(self._cost_left * self.expected_part())

    @asynccontextmanager
    async def turn(self, cost: int) -> AsyncIterator[Work]:
        """Wait for a turn of some cost, and hold it while the context lasts."""
        self._cost_left -= cost
        work = Work()
        if self._turn.kind is Kind.WHOLE and cost <= self._turn_left:
            self._turn_left -= cost
            yield work
            self._reused += cost * (1 - work.computed)
            return

        price = partial(expected_cost, cost, self.expected_part)
        if self._turn.kind is Kind.FIRST and self._holds_turn:
            self._holds_turn = False
            turn = self._turn
            self._gate.resize(turn, price())
        else:
            turn = await self._gate.next_turn(self.scope, price)

        computed = None
        try:
            yield work
            computed = cost * work.computed / turn.cost
        finally:
            self._gate.leave(turn, computed)

    def end(self) -> None:
        """Give the first turn back. The cost that no turn was taken for counts as cached, if the
        request has been answered."""
        cached = 0
        if self._turn.kind is Kind.FIRST and self.computed is not None:
            cached = self.left

        if self._holds_turn:
            self._turn.ticket.cost += max(0, cached - self._turn.cost)
            self._gate.leave(self._turn, self._computed_part())
        elif cached > 0:
            self._gate.add_cached(cached)

    def _computed_part(self) -> float | None:
        """The computed part of the first turn's cost; None where the request was not answered."""
        if self.computed is None or self._turn.kind is Kind.FIRST:
            return self.computed
        return max(0.0, self.computed * self._cost - self._reused) / self._turn.cost
