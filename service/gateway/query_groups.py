"""A request's documents grouped by their query, and the groups scored side by side.

Depends on contexts and outcomes, not on how a group is scored. Invariant: each readable document is
in one group, and at most `QUERIES_AT_ONCE` groups of a request are scored at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from service.errors import BadRequest
from service.gateway.domain import Documents, ScoringContext
from service.gateway.media.content import Content
from service.gateway.single_flight import FlightResult
from service.wire import Scored

QUERIES_AT_ONCE = 8
"""Queries of one request whose documents are scored at a time."""


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """The documents of one query, and their keys, both by index."""

    context: ScoringContext
    documents: dict[int, Content]
    keys: dict[int, bytes]

    def missing(self, known: Mapping[bytes, Scored]) -> Documents:
        """The documents without a known score, by key."""
        return {key: self.documents[index] for index, key in self.keys.items() if key not in known}


ScoreGroup = Callable[[QueryGroup], Awaitable[FlightResult]]


async def score_groups(groups: Sequence[QueryGroup], score: ScoreGroup) -> FlightResult:
    """The outcomes of some groups together; a group that fails fails all."""
    if len(groups) == 1:
        return await score(groups[0])

    places = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def in_place(group: QueryGroup) -> FlightResult:
        async with places:
            return await score(group)

    try:
        async with asyncio.TaskGroup() as tasks:
            flights = [tasks.create_task(in_place(group)) for group in groups]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None

    together = FlightResult()
    for flight in flights:
        result = flight.result()
        together.digests.update(result.digests)
        together.fresh.update(result.fresh)
        together.joined.update(result.joined)
    return together


def is_of_query(error: BadRequest) -> bool:
    """True if an error names the query of a group, and thus fails no other group."""
    return any(problem.loc[:1] in (("query",), ("queries",)) for problem in error.problems)
