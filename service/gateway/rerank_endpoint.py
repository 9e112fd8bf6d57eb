"""The rerank endpoint: the checks of one request, the cheapest first, then its answer.

Everything that can be refused without the body is refused before the body is read, and of the body
only JSON is read before the request is admitted. Invariant: everything that a request holds is
released, however the request ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import anyio.to_thread
from fastapi import Request, Response
from pydantic_core import to_json

from service.errors import DeadlineExceeded, NoWorker, RerankError, UnsupportedMediaType
from service.gateway.admission.authentication import Caller, caller_of
from service.gateway.admission.queue import AdmissionQueue
from service.gateway.admission.quotas import Quotas, QuotaTicket
from service.gateway.costs import request_cost
from service.gateway.dialects.catalogue import choose
from service.gateway.dialects.dialect import Dialect, OnError, RequestMarks
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.fleet.pool import WorkerPool
from service.gateway.modalities import expect_readable
from service.gateway.model_names import ModelNames
from service.gateway.parsing.bodies import BodyParser
from service.gateway.parsing.json_body import Path
from service.gateway.request_metrics import count_query, count_result
from service.gateway.rerank import Reranker
from service.limits import Limits
from service.observability.metrics import SHED
from service.observability.request_context import add_log_fields, request_id, stage
from service.observability.score_metrics import short_digest
from service.web.asgi import until_answered, until_disconnect
from service.web.body_budget import BodyBudget, Reservation
from service.web.error_response import set_error_writer
from service.web.request_body import announced_bytes, read_body
from service.wire import WorkerInfo


class RerankEndpoint:
    """Answers rerank requests of every dialect.

    `default_timeout` (seconds) and `on_error` hold for requests that name none. With
    `cache_shared`, tenants share cached scores.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        pool: WorkerPool,
        names: ModelNames,
        quotas: Quotas,
        body_budget: BodyBudget,
        body_parser: BodyParser,
        admission: AdmissionQueue,
        reranker: Reranker,
        default_timeout: float,
        on_error: OnError = "fail",
        cache_shared: bool = False,
    ) -> None:
        self._limits = limits
        self._pool = pool
        self._names = names
        self._quotas = quotas
        self._body_budget = body_budget
        self._body_parser = body_parser
        self._admission = admission
        self._reranker = reranker
        self._default_timeout = default_timeout
        self._on_error = on_error
        self._cache_shared = cache_shared

    async def serve(self, request: Request, dialects: Sequence[Dialect]) -> Response:
        """Answer a request in the first of some dialects that matches it; raises a `RerankError`
        where the request fails."""
        clock = asyncio.get_running_loop().time
        arrived = clock()
        caller = caller_of(request)
        # until the body is read, a failure counts as one of the dialect that takes any request
        add_log_fields(tenant=caller.name(), dialect=dialects[-1].name)

        _expect_json(request)
        self._expect_room(caller)
        announced = announced_bytes(request, self._limits.max_body_bytes)

        with self._quotas.ticket(caller.scope, caller.quota) as ticket:
            held = until_answered(request).enter_context(
                self._body_budget.reserve(announced, caller.scope)
            )
            try:
                with stage("parse"):
                    dialect, query = await self._read(request, held, ticket, dialects)
                count_query(query)
                model = self._names.find(caller, query.model)
                query = expect_readable(replace(query, model=model.model), model)
            except RerankError:
                ticket.refund()
                raise

            timeout = query.timeout_ms / 1000 if query.timeout_ms else self._default_timeout
            deadline = arrived + timeout
            add_log_fields(model=model.model, digest=short_digest(model.digest))
            try:
                work = self._answer(caller, query, model, deadline)
                result = await until_disconnect(request, work)
            finally:
                add_log_fields(deadline_left_ms=round((deadline - clock()) * 1000))

            count_result(query, result, clock() - arrived)
            with stage("order"):
                answer = dialect.respond(query, result, request_id.get())
                page = to_json(answer, exclude_none=True)
            return Response(
                held.replace_with(page),
                headers=dict(dialect.headers),
                media_type="application/json",
            )

    def _expect_room(self, caller: Caller) -> None:
        """Raise `NoWorker` or `Overloaded` where a request could not be served now."""
        if not self._pool.ready():
            SHED.labels("no_worker").inc()
            raise NoWorker
        self._admission.expect_room(caller.scope)

    async def _read(
        self,
        request: Request,
        held: Reservation,
        ticket: QuotaTicket,
        dialects: Sequence[Dialect],
    ) -> tuple[Dialect, RerankQuery]:
        """Read the body, choose its dialect, charge the quota with its number of documents, and
        build the query."""
        body = await read_body(request, self._limits.max_body_bytes, held)
        async with self._body_parser.turn(len(body)):
            outline = await self._body_parser.outline(body, _fields(dialects))
            del body  # the outline has what is left of it

            dialect = choose(dialects, RequestMarks(outline.names, request.headers))
            set_error_writer(request, dialect.error_body)
            add_log_fields(dialect=dialect.name)

            held.grow(outline.memory)
            listed = outline.entries.get(dialect.documents) if dialect.documents else None
            if listed is not None:
                ticket.charge(listed)

            query = await self._body_parser.build(
                outline, lambda body, limits: dialect.read(body, limits, self._on_error)
            )
            if listed is None:  # no top-level list: their number is known only now
                ticket.charge(len(query.documents))

            model = request.path_params.get("model")
            return dialect, query if model is None else replace(query, model=model)

    async def _answer(
        self, caller: Caller, query: RerankQuery, model: WorkerInfo, deadline: float
    ) -> RerankResult:
        """Rerank once the request is admitted. A query that skips errors gets a result without
        scores where its deadline passes before."""
        try:
            return await self._rerank_admitted(caller, query, model, deadline)
        except DeadlineExceeded:
            if not query.skip_errors:
                raise

        errors: list[tuple[int, RerankError]] = []
        for index, document in enumerate(query.documents):
            error = document if isinstance(document, RerankError) else DeadlineExceeded()
            errors.append((index, error))
        return RerankResult(model, [], errors)

    async def _rerank_admitted(
        self, caller: Caller, query: RerankQuery, model: WorkerInfo, deadline: float
    ) -> RerankResult:
        """Wait for admission by the request's estimated cost, and rerank."""
        cost = await anyio.to_thread.run_sync(request_cost, query, model)

        async with self._admission.admit(cost, deadline, caller.scope) as admitted:
            scope = "" if self._cache_shared else caller.scope
            result = await self._reranker.rerank(query, deadline, scope=scope, turns=admitted)

            computed = sum(not document.cached for document in result.ranked)
            admitted.computed = computed / len(query.documents)
            return result


def _fields(dialects: Sequence[Dialect]) -> frozenset[Path]:
    """The fields whose values a dialect of a path may read."""
    fields: frozenset[Path] = frozenset()
    return fields.union(*(dialect.fields for dialect in dialects))


def _expect_json(request: Request) -> None:
    """Raise `UnsupportedMediaType` where the body is announced as something else than JSON."""
    content_type = request.headers.get("content-type", "application/json")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        return
    if not (media_type.startswith("application/") and media_type.endswith("+json")):
        raise UnsupportedMediaType
