"""Turns: a request's permission to work, one chunk of its documents after the other.

Depends on costs, not on how turns are granted. Invariant: a turn is held for the time of its work.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from service.gateway.admission.admitted import Work


class Turns(Protocol):
    """A request's permission to work: each chunk waits for a turn, whose cost should be at most
    `slice_cost`, or `prefixes_a_slice` times that of its prefix where that is more, and that of
    some answers beside it where the model writes its scores.

    Costs are those of work that is computed in full; `expected_part` of it is expected to be.
    Background work is what no request waits for.
    """

    @property
    def scope(self) -> str: ...
    @property
    def is_background(self) -> bool: ...
    @property
    def prefixes_a_slice(self) -> int: ...
    @property
    def slice_cost(self) -> int: ...
    def expected_part(self) -> float: ...
    def turn(self, cost: int) -> AbstractAsyncContextManager[Work]: ...


class _Unbounded:
    """Turns that are granted at once."""

    scope = ""
    is_background = False
    prefixes_a_slice = 1
    slice_cost = 2**62

    def expected_part(self) -> float:
        return 1.0

    def turn(self, cost: int) -> AbstractAsyncContextManager[Work]:
        return nullcontext(Work())


UNBOUNDED = _Unbounded()
