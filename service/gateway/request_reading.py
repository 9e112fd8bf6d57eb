"""A request's JSON object as a query, within bounds, and the model that it names.

Depends on bytes and dialects, not on HTTP: a body may be that of a request or one line of a stream.
Invariant: where a body lists its documents, the quota is charged before any is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from service.gateway.admission.authentication import Caller
from service.gateway.admission.quotas import QuotaTicket
from service.gateway.calibrations import expect_calibrated
from service.gateway.dialects.catalogue import choose
from service.gateway.dialects.dialect import Dialect, OnError, RequestMarks
from service.gateway.domain import RerankQuery
from service.gateway.modalities import expect_readable
from service.gateway.model_names import ModelNames
from service.gateway.parsing.bodies import BodyParser
from service.gateway.parsing.json_body import Path
from service.web.body_budget import Reservation
from service.wire import WorkerInfo


def _ignore(dialect: Dialect) -> None:
    """Leave the choice of a dialect without effect."""


class RequestReader:
    """Reads queries; `on_error` holds for requests that name none."""

    def __init__(
        self, body_parser: BodyParser, names: ModelNames, on_error: OnError = "fail"
    ) -> None:
        self._body_parser = body_parser
        self._names = names
        self._on_error = on_error

    async def read(
        self,
        body: bytearray,
        dialects: Sequence[Dialect],
        headers: Mapping[str, str],
        held: Reservation,
        ticket: QuotaTicket,
        chosen: Callable[[Dialect], None] = _ignore,
    ) -> tuple[Dialect, RerankQuery]:
        """Choose the dialect of a body, charge the quota with its number of documents, and build
        the query; the caller should not keep the body.

        `chosen` is called with the dialect before anything else can be refused.
        """
        async with self._body_parser.turn(len(body)):
            outline = await self._body_parser.outline(body, _fields(dialects))
            del body  # the outline has what is left of it

            dialect = choose(dialects, RequestMarks(outline.names, headers))
            chosen(dialect)
            held.grow(outline.memory)
            listed = outline.entries.get(dialect.documents) if dialect.documents else None
            if listed is not None:
                ticket.charge(listed)

            query = await self._body_parser.build(
                outline, lambda body, limits: dialect.read(body, limits, self._on_error)
            )
            if listed is None:  # no list of documents: their number is known only now
                ticket.charge(len(query.documents))
            return dialect, query

    def with_model(self, caller: Caller, query: RerankQuery) -> tuple[RerankQuery, WorkerInfo]:
        """The query for a model that the caller may use, and the model; raises a `RerankError`
        where there is none, or where it cannot answer the query."""
        model = self._names.find(caller, query.model)
        expect_calibrated(query, model)
        return expect_readable(replace(query, model=model.model), model), model


def _fields(dialects: Sequence[Dialect]) -> frozenset[Path]:
    """The fields whose values one of some dialects may read."""
    fields: frozenset[Path] = frozenset()
    return fields.union(*(dialect.fields for dialect in dialects))
