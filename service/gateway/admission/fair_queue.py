"""A fair queue of turns: fair to tenants by cost, and to small requests beside large ones.

The order is start-time fair queueing on two levels. Of the scopes (tenants) that wait, the one that
was served least is next. A scope has two lanes, one of small requests and one of slices of large
requests; the lane that was served least is next. Each lane is first in, first out. The queue
depends on costs alone, and decides the order of turns, not their time. Invariant: while a scope or
a lane waits, it is served at most one turn less than any other, by cost.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

from service.gateway.admission.throughput import Ticket


class Kind(Enum):
    """The purpose of a turn."""

    WHOLE = "whole"
    """A small request, all of it."""
    FIRST = "first"
    """The first slice of a large request, which is admitted with it."""
    NEXT = "next"
    """A later slice of a large request that is admitted."""

    @property
    def lane(self) -> Kind:
        """The kind that names the lane: `WHOLE` for small requests, `NEXT` for slices."""
        return self if self is Kind.WHOLE else Kind.NEXT


_numbers = count()


@dataclass(slots=True, eq=False)
class Turn:
    """A scope's permission to do work of some cost, valid once `granted` has its result. `ticket`
    measures the throughput of the work, and `price` is its cost at the moment, if that changes."""

    scope: str
    cost: int
    kind: Kind
    price: Callable[[], int] | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    granted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    ticket: Ticket = field(init=False)

    def __post_init__(self) -> None:
        self.ticket = Ticket(self.cost)

    def update_cost(self) -> None:
        """Set the cost to the price. Not for a turn that waits, whose cost the queue counts."""
        if self.price is not None:
            self.cost = self.ticket.cost = self.price()

    @property
    def newcomer(self) -> bool:
        """True if the turn's request is not admitted yet."""
        return self.kind is not Kind.NEXT


@dataclass(slots=True)
class _Lane:
    """Turns in order of arrival, each kind by itself; `served` is the cost served so far, on the
    scale that both lanes of a scope have in common."""

    kinds: tuple[Kind, ...]
    served: float = 0.0
    cost: int = 0
    turns: dict[Kind, deque[Turn]] = field(init=False)

    def __post_init__(self) -> None:
        self.turns = {kind: deque() for kind in self.kinds}

    def heads(self) -> list[Turn]:
        """The first turn of each kind, in order of arrival."""
        heads = [turns[0] for turns in self.turns.values() if turns]
        return sorted(heads, key=lambda turn: turn.number)


class _Scope:
    """The waiting turns of one scope."""

    def __init__(self, served: float) -> None:
        self.served = served
        self.small = _Lane((Kind.WHOLE,))
        self.large = _Lane((Kind.FIRST, Kind.NEXT))

    @property
    def cost(self) -> int:
        return self.small.cost + self.large.cost

    @property
    def newcomers(self) -> int:
        return len(self.small.turns[Kind.WHOLE]) + len(self.large.turns[Kind.FIRST])

    def lanes(self, kind: Kind) -> tuple[_Lane, _Lane]:
        """The lane of a kind, and the other lane."""
        if kind is Kind.WHOLE:
            return self.small, self.large
        return self.large, self.small

    def heads(self) -> list[Turn]:
        """The turns that may be next, those of the lane that was served least first."""
        if self.small.served <= self.large.served:
            return [*self.small.heads(), *self.large.heads()]
        return [*self.large.heads(), *self.small.heads()]

    def last_newcomer(self) -> Turn:
        """The newcomer that arrived last."""
        small, large = self.small.turns[Kind.WHOLE], self.large.turns[Kind.FIRST]
        last = [turns[-1] for turns in (small, large) if turns]
        return max(last, key=lambda turn: turn.number)

    def share_before(self, own: int) -> int:
        """The cost that this scope is served with while another one is served with `own`."""
        heads = self.heads()
        next_cost = heads[0].cost if heads else 0
        return min(self.cost, own or next_cost)


class FairQueue:
    """The turns of all scopes that wait. `newcomers` is the number of requests among them."""

    def __init__(self) -> None:
        self._scopes: dict[str, _Scope] = {}
        # the served cost of scopes that no longer wait, while others do
        self._left: dict[str, float] = {}
        self._served = 0.0
        self.newcomers = 0

    def __bool__(self) -> bool:
        return bool(self._scopes)

    def is_empty(self) -> bool:
        """True if no turn waits and no scope's past is kept."""
        return not (self._scopes or self._left)

    def add(self, turn: Turn) -> None:
        """Append a turn to those of its scope and kind."""
        scope = self._scopes.get(turn.scope)
        if scope is None:
            served = max(self._served, self._left.pop(turn.scope, 0.0))
            scope = self._scopes[turn.scope] = _Scope(served)

        lane, other_lane = scope.lanes(turn.kind)
        if not lane.cost:
            lane.served = max(lane.served, other_lane.served)
        lane.turns[turn.kind].append(turn)
        lane.cost += turn.cost
        self.newcomers += turn.newcomer

    def remove(self, turn: Turn) -> None:
        """Remove a turn, if it waits."""
        scope = self._scopes.get(turn.scope)
        if scope is None:
            return
        lane, _ = scope.lanes(turn.kind)
        if turn not in lane.turns[turn.kind]:
            return

        lane.turns[turn.kind].remove(turn)
        lane.cost -= turn.cost
        self.newcomers -= turn.newcomer

        if not scope.cost:
            self._left[turn.scope] = scope.served
            del self._scopes[turn.scope]
        if not self._scopes:  # with nothing waiting, no scope is behind another one
            self._left.clear()
            self._served = 0.0

    def serve(self, turn: Turn) -> None:
        """Take a turn out of the queue, and charge its scope and its lane with its cost."""
        scope = self._scopes[turn.scope]
        lane, _ = scope.lanes(turn.kind)
        self._served = scope.served
        scope.served += turn.cost
        lane.served += turn.cost
        self.remove(turn)

    def next_turn(self, may_enter: Callable[[Turn], bool]) -> Turn | None:
        """The first turn that may enter. Turns that were given up are removed on the way: the task
        that waited for one may not have run yet."""
        while True:
            for turn in list(self.candidates()):
                if turn.granted.done():
                    self.remove(turn)
                    break
                if may_enter(turn):
                    return turn
            else:
                return None

    def candidates(self) -> Iterator[Turn]:
        """The turns that may be next, in order of preference: one that cannot be served yet does
        not block those after it."""
        order = [(scope.served, index, scope) for index, scope in enumerate(self._scopes.values())]
        heapq.heapify(order)
        while order:
            *_, scope = heapq.heappop(order)
            yield from scope.heads()

    def last_of_longest(self, scope: str) -> Turn | None:
        """The last newcomer of the scope with most newcomers; None unless that scope has more of
        them than `scope` would have with one more."""
        longest = max(self._scopes.values(), key=lambda waiting: waiting.newcomers, default=None)
        own = self._scopes[scope].newcomers if scope in self._scopes else 0
        if longest is None or longest.newcomers <= own + 1:
            return None
        return longest.last_newcomer()

    def lane_cost(self, scope: str, kind: Kind) -> int:
        """The cost of a scope's turns that wait in the lane of a kind."""
        if scope not in self._scopes:
            return 0
        lane, _ = self._scopes[scope].lanes(kind)
        return lane.cost

    def ahead(self, scope: str, kind: Kind, *, endless: Callable[[str], bool]) -> int:
        """The cost that is served before a turn of a scope that arrives now: its own turns, and at
        most as much of each other scope.

        `endless` scopes have more slices to come than those that wait.
        """
        own = self._own_ahead(scope, kind, endless=endless(scope))
        others = 0
        for name, waiting in self._scopes.items():
            if name == scope:
                continue
            if own and endless(name):
                others += own
            else:
                others += waiting.share_before(own)
        return own + others

    def _own_ahead(self, scope: str, kind: Kind, *, endless: bool) -> int:
        """The cost of a scope's own turns that are served before a turn that arrives now."""
        waiting = self._scopes.get(scope)
        if waiting is None:
            return 0

        lane, other_lane = waiting.lanes(kind)
        if kind is Kind.WHOLE and endless:
            return 2 * lane.cost
        return lane.cost + min(other_lane.cost, lane.cost)
