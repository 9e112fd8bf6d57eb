"""Turns that are waited for, in an order that is fair to tenants by cost, and to small requests
beside large ones.

This is start-time fair queueing in two levels. Of the scopes (tenants) that wait, the one that was
served least is next. Within a scope there are two lanes, small requests and slices of large ones;
the lane that was served least is next. Each lane is served in the order of arrival. The queue knows
costs, not what they stand for; it decides an order, not when there is room. Invariant: while a
scope or a lane waits, it is served at most one turn less than any other, by cost.
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
    """A large request that is not admitted yet, for its first slice."""
    NEXT = "next"
    """A later slice of a large request that is admitted."""

    @property
    def lane(self) -> Kind:
        """`WHOLE` for small requests, `NEXT` for slices of large ones: these two take turns."""
        return self if self is Kind.WHOLE else Kind.NEXT


_numbers = count()


@dataclass(slots=True, eq=False)
class Turn:
    """One turn of a scope: `cost` units, `granted` once they may be used. `stay` measures how long
    they are."""

    scope: str
    cost: int
    kind: Kind
    number: int = field(default_factory=lambda: next(_numbers))
    granted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    stay: Ticket = field(init=False)

    def __post_init__(self) -> None:
        self.stay = Ticket(self.cost)

    @property
    def newcomer(self) -> bool:
        """Whether its request is not admitted yet."""
        return self.kind is not Kind.NEXT


@dataclass(slots=True)
class _Lane:
    """Turns that are served in their order, each kind by itself; `served` is the cost served, on
    the scope's common scale."""

    kinds: tuple[Kind, ...]
    served: float = 0.0
    cost: int = 0
    turns: dict[Kind, deque[Turn]] = field(init=False)

    def __post_init__(self) -> None:
        self.turns = {kind: deque() for kind in self.kinds}

    def heads(self) -> list[Turn]:
        """The first turn of each kind, the earliest first."""
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
        """The lane of a kind, and the other one."""
        return (self.small, self.large) if kind is Kind.WHOLE else (self.large, self.small)

    def heads(self) -> list[Turn]:
        """The turns that may be next, the preferred one first."""
        small_first = self.small.served <= self.large.served
        first, second = (self.small, self.large) if small_first else (self.large, self.small)
        return [*first.heads(), *second.heads()]

    def last(self) -> Turn:
        """The newcomer that came last."""
        lasts = [
            turns[-1]
            for turns in (self.small.turns[Kind.WHOLE], self.large.turns[Kind.FIRST])
            if turns
        ]
        return max(lasts, key=lambda turn: turn.number)

    def share_before(self, own: int) -> int:
        """The cost that this scope is served with while another is served with `own`."""
        heads = self.heads()
        return min(self.cost, own or (heads[0].cost if heads else 0))


class FairQueue:
    """The turns of all scopes that wait."""

    def __init__(self) -> None:
        self._scopes: dict[str, _Scope] = {}
        # what scopes were served with that wait no more, while others do
        self._left: dict[str, float] = {}
        self._scale = 0.0
        self.newcomers = 0

    def __bool__(self) -> bool:
        return bool(self._scopes)

    def add(self, turn: Turn) -> None:
        """Queue a turn up behind those of its scope and kind."""
        scope = self._scopes.get(turn.scope)
        if scope is None:
            scope = self._scopes[turn.scope] = _Scope(
                max(self._scale, self._left.pop(turn.scope, 0.0))
            )
        lane, other = scope.lanes(turn.kind)
        if not lane.cost:
            lane.served = max(lane.served, other.served)
        lane.turns[turn.kind].append(turn)
        lane.cost += turn.cost
        self.newcomers += turn.newcomer

    def remove(self, turn: Turn) -> None:
        """Forget a turn, if it waits."""
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
        if not self._scopes:  # nobody waits: nobody is owed anything
            self._left.clear()
            self._scale = 0.0

    def serve(self, turn: Turn) -> None:
        """Take a turn out of the queue, and charge its scope and lane with it."""
        scope = self._scopes[turn.scope]
        lane, _ = scope.lanes(turn.kind)
        self._scale = scope.served
        scope.served += turn.cost
        lane.served += turn.cost
        self.remove(turn)

    def candidates(self) -> Iterator[Turn]:
        """The turns that may be next, the preferred one first: where it cannot be served yet, the
        one after it may be."""
        order = [(scope.served, place, scope) for place, scope in enumerate(self._scopes.values())]
        heapq.heapify(order)
        while order:
            yield from heapq.heappop(order)[2].heads()

    def last_of_longest(self, scope: str) -> Turn | None:
        """The last newcomer of the scope that has most, if that is more than `scope` has and one
        more."""
        longest = max(self._scopes.values(), key=lambda each: each.newcomers, default=None)
        own = self._scopes[scope].newcomers if scope in self._scopes else 0
        return longest.last() if longest and longest.newcomers > own + 1 else None

    def lane_cost(self, scope: str, kind: Kind) -> int:
        """The cost of a scope's turns that wait in the lane of a kind."""
        return self._scopes[scope].lanes(kind)[0].cost if scope in self._scopes else 0

    def ahead(self, scope: str, kind: Kind, *, endless: Callable[[str], bool]) -> int:
        """The cost that is served before a turn of a scope that comes now: others get no more of it
        than its own do.

        `endless` scopes have more slices to come than wait.
        """
        own = self._scopes.get(scope)
        mine = 0
        if own:
            lane, other = own.lanes(kind)
            beside = (
                lane.cost if kind is Kind.WHOLE and endless(scope) else min(other.cost, lane.cost)
            )
            mine = lane.cost + beside
        others = 0
        for name, each in self._scopes.items():
            if name != scope:
                others += mine if mine and endless(name) else each.share_before(mine)
        return mine + others
