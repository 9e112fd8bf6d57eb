"""Single flight: a pair of several concurrent requests is scored once.

Depends on keys and outcomes, not on how or why pairs are scored. The first request for a pair
leads its flight. Others join the flight, and wait for it only after the flights that they lead have
landed. Invariant: a leader lands its flight in every case and before it waits for another one, so
no request waits for ever. A flight hands over only outcomes of the wanted model digest; a request
that gets none from it scores the pair as if there had been no flight.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from service.errors import BadRequest, DeadlineExceeded
from service.gateway.domain import Documents, PairOutcome
from service.observability.metrics import COALESCED
from service.observability.tracing import Span, current_span
from service.wire import Scored

JOINS = 2
"""Flights that a pair joins at most, one after the other; after that its request scores it."""
SMALL_FLIGHT = 64
"""Pairs of a flight that any request joins."""
WORTH_JOINING = 4
"""A larger flight is joined for at least one in so many of its pairs: for fewer, waiting for all of
it costs more than scoring them again."""

Score = Callable[[Documents], Awaitable[tuple[set[str], dict[bytes, PairOutcome]]]]
"""Scores documents; returns the model digests of the replies, and each document's outcome by key.
"""


@dataclass(slots=True, eq=False)
class _InFlight:
    """Pairs that one request scores; `landed` has the outcomes that others may use."""

    size: int
    span: Span | None
    is_background: bool
    landed: asyncio.Future[Mapping[bytes, PairOutcome]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(frozen=True, slots=True)
class FlightResult:
    """The model digests of the replies, the outcomes of pairs scored for this request, and those
    of pairs scored for another one."""

    digests: set[str] = field(default_factory=set)
    fresh: dict[bytes, PairOutcome] = field(default_factory=dict)
    joined: dict[bytes, PairOutcome] = field(default_factory=dict)


class SingleFlight:
    """The pairs that one gateway scores at the moment."""

    def __init__(self) -> None:
        self._in_flight: dict[bytes, _InFlight] = {}

    @property
    def pairs(self) -> int:
        """The number of pairs in flight."""
        return len(self._in_flight)

    async def score(
        self,
        documents: Documents,
        digest: str,
        deadline: float,
        score: Score,
        *,
        background: bool = False,
    ) -> FlightResult:
        """An outcome for each document, by key: from a flight of another request where there is
        one, else from `score`.

        Waiting for other requests ends at `deadline` (event loop time); `score` keeps the deadline
        by itself, and its exceptions are raised. No request waits for a flight of `background`
        work.
        """
        result = FlightResult()
        for joins_left in reversed(range(JOINS + 1)):
            flights = self._worth_joining(documents, background) if joins_left else {}
            own = {key: content for key, content in documents.items() if key not in flights}
            await self._lead(own, digest, score, result, background)

            result.joined.update(await _landed(flights, deadline))
            _link(flights.values())
            documents = {key: documents[key] for key in flights if key not in result.joined}
            if not documents:
                break
            if asyncio.get_running_loop().time() >= deadline:
                result.fresh.update(dict.fromkeys(documents, DeadlineExceeded()))
                break

        COALESCED.inc(len(result.joined))
        return result

    def _worth_joining(self, documents: Documents, background: bool) -> dict[bytes, _InFlight]:
        """The flights to wait for, by the key of the pair."""
        flights: dict[bytes, _InFlight] = {}
        for key in documents:
            flight = self._in_flight.get(key)
            if flight is not None and flight.is_background <= background:
                flights[key] = flight

        wanted = Counter(flights.values())
        return {
            key: flight
            for key, flight in flights.items()
            if flight.size <= SMALL_FLIGHT or wanted[flight] * WORTH_JOINING >= flight.size
        }

    async def _lead(
        self,
        documents: Documents,
        digest: str,
        score: Score,
        result: FlightResult,
        background: bool,
    ) -> None:
        """Score documents in a flight of their own, and land it."""
        if not documents:
            return

        flight = _InFlight(len(documents), current_span(), background)
        for key in documents:
            known = self._in_flight.get(key)
            if known is None or known.is_background > background:
                self._in_flight[key] = flight

        shared: dict[bytes, PairOutcome] = {}
        try:
            digests, outcomes = await score(documents)
            result.digests.update(digests)
            result.fresh.update(outcomes)
            if digests <= {digest}:
                shared = _shareable(outcomes)
        finally:
            for key in documents:
                if self._in_flight.get(key) is flight:
                    del self._in_flight[key]
            flight.landed.set_result(shared)


def _shareable(outcomes: Mapping[bytes, PairOutcome]) -> dict[bytes, PairOutcome]:
    """The outcomes that are the same for every request: scores, and errors of the pair itself."""
    return {
        key: outcome
        for key, outcome in outcomes.items()
        if isinstance(outcome, Scored | BadRequest)
    }


def _link(flights: Iterable[_InFlight]) -> None:
    """Link the spans of the requests that scored for this one to its trace."""
    own = current_span()
    if own is None:
        return

    contexts = {flight.span.context for flight in flights if flight.span}
    for context in contexts:
        own.add_link(context)


async def _landed(flights: Mapping[bytes, _InFlight], deadline: float) -> dict[bytes, PairOutcome]:
    """The outcomes of those flights that land before the deadline. The flights are not cancelled
    with this wait."""
    if not flights:
        return {}

    time_left = deadline - asyncio.get_running_loop().time()
    landings = {flight.landed for flight in flights.values()}
    await asyncio.wait(landings, timeout=max(time_left, 0))

    outcomes: dict[bytes, PairOutcome] = {}
    for key, flight in flights.items():
        if not flight.landed.done():
            continue
        outcome = flight.landed.result().get(key)
        if outcome is not None:
            outcomes[key] = outcome
    return outcomes
