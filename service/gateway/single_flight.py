"""Pairs that are being scored right now, so that equal ones are scored once however many requests
want them.

Knows keys and verdicts, nothing of how pairs are scored or why. The first to want a pair leads its
flight; others join it, and wait only after their own flights have landed. Invariant: whoever leads
a flight lands it whatever happens, before waiting for any other, so nobody waits for ever; a flight
hands over only what the wanted model digest said, and who gets nothing out of it scores the pair as
if there had been none.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from service.errors import BadRequest, DeadlineExceeded
from service.gateway.domain import PairOutcome
from service.gateway.media.content import Content
from service.observability.metrics import COALESCED
from service.observability.tracing import Span, current_span
from service.wire import Scored

JOINS = 2
"""Flights in a row that a pair may wait for in vain; then its request scores it alone."""
SMALL_FLIGHT = 64
"""Pairs of a flight that anyone joins. Who wants less than a quarter of a larger one would wait
longer than it saves."""
WORTH_JOINING = 4

Score = Callable[[Mapping[bytes, Content]], Awaitable[tuple[set[str], dict[bytes, PairOutcome]]]]
"""Scores documents: the model digests that answered, and a verdict on each document, by its key."""


@dataclass(slots=True, eq=False)
class _InFlight:
    size: int
    span: Span | None
    landed: asyncio.Future[Mapping[bytes, PairOutcome]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(frozen=True, slots=True)
class FlightResult:
    """The digests that answered, the verdicts on what was scored here, and those that another
    request's flight brought."""

    digests: set[str] = field(default_factory=set)
    fresh: dict[bytes, PairOutcome] = field(default_factory=dict)
    joined: dict[bytes, PairOutcome] = field(default_factory=dict)


class SingleFlight:
    """The flights of one gateway."""

    def __init__(self) -> None:
        self._flying: dict[bytes, _InFlight] = {}

    async def score(
        self, documents: Mapping[bytes, Content], digest: str, until: float, score: Score
    ) -> FlightResult:
        """A verdict on each document, by its key: from another's flight where there is one, else
        from `score`.

        `until` (event loop time) ends the waiting for others; `score` ends by itself, and what it
        raises is raised.
        """
        flown = FlightResult()
        for joins in reversed(range(JOINS + 1)):
            flights = self._worth_joining(documents) if joins else {}
            await self._lead(
                {key: content for key, content in documents.items() if key not in flights},
                digest,
                score,
                flown,
            )
            flown.joined.update(await _landed(flights, until))
            _link(flights.values())
            documents = {key: documents[key] for key in flights if key not in flown.joined}
            if not documents:
                break
            if asyncio.get_running_loop().time() >= until:
                flown.fresh.update(dict.fromkeys(documents, DeadlineExceeded()))
                break
        COALESCED.inc(len(flown.joined))
        return flown

    def _worth_joining(self, documents: Mapping[bytes, Content]) -> dict[bytes, _InFlight]:
        flights = {key: flight for key in documents if (flight := self._flying.get(key))}
        wanted = Counter(flights.values())
        return {
            key: flight
            for key, flight in flights.items()
            if flight.size <= SMALL_FLIGHT or wanted[flight] * WORTH_JOINING >= flight.size
        }

    async def _lead(
        self, documents: Mapping[bytes, Content], digest: str, score: Score, flown: FlightResult
    ) -> None:
        if not documents:
            return
        flight = _InFlight(len(documents), current_span())
        for key in documents:
            self._flying.setdefault(key, flight)
        landed: Mapping[bytes, PairOutcome] = {}
        try:
            digests, verdicts = await score(documents)
            flown.digests.update(digests)
            flown.fresh.update(verdicts)
            if digests <= {digest}:
                landed = {
                    key: verdict
                    for key, verdict in verdicts.items()
                    if isinstance(verdict, Scored | BadRequest)
                }
        finally:
            for key in documents:
                if self._flying.get(key) is flight:
                    del self._flying[key]
            flight.landed.set_result(landed)


def _link(flights: Iterable[_InFlight]) -> None:
    """Name in this request's trace the spans of those that scored for it."""
    own = current_span()
    if own is None:
        return
    for other in {flight.span.context for flight in flights if flight.span}:
        own.add_link(other)


async def _landed(flights: Mapping[bytes, _InFlight], until: float) -> dict[bytes, PairOutcome]:
    """What the flights brought until then; waiting leaves no trace on them, however it ends."""
    if not flights:
        return {}
    left = until - asyncio.get_running_loop().time()
    await asyncio.wait({flight.landed for flight in flights.values()}, timeout=max(left, 0))
    return {
        key: verdict
        for key, flight in flights.items()
        if flight.landed.done() and (verdict := flight.landed.result().get(key)) is not None
    }
