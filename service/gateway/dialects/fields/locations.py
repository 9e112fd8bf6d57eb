"""Locations in a vendor's request, for errors whose locations are in the service's own.

The parts of the gateway below the dialects know one request: `query`, `documents`. The module
depends on errors alone. Invariant: an error keeps its class, its messages and its order of
problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.errors import Loc, Problem, RerankError

Relocate = Callable[[Loc], Loc]
"""The location in a vendor's request of a location in the service's own."""


def unmoved(loc: Loc) -> Loc:
    """The same location: the vendor's fields have the service's names."""
    return loc


def moved(places: Mapping[str, Loc], *, strings: bool = False) -> Relocate:
    """A `Relocate` that replaces the first step of a location.

    `places` has the locations of fields in the vendor's request, such as `{"documents":
    ("passages",)}`. With `strings`, a vendor's items are strings, and their text has no location of
    its own.
    """

    def relocate(loc: Loc) -> Loc:
        if not loc or loc[0] not in places:
            return loc
        inner = loc[1:]
        if strings and inner[-1:] == ("text",):
            inner = inner[:-1]
        return (*places[str(loc[0])], *inner)

    return relocate


def relocated(error: RerankError, relocate: Relocate) -> RerankError:
    """The same error with its locations in a vendor's request."""
    if not error.problems:
        return error
    return type(error)(
        error.message,
        problems=[Problem(relocate(each.loc), each.message) for each in error.problems],
        unlisted=error.unlisted,
        retry_after=error.retry_after,
    )
