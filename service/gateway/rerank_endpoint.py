"""The rerank endpoint: the checks of one request, the cheapest first, then its answer.

Everything that can be refused without the body is refused before the body is read, and of the body
only JSON is read before the request is admitted. Invariant: everything that a request holds is
released, however the request ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import anyio.to_thread
from fastapi import Request, Response
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from service.errors import (
    DeadlineExceeded,
    InvalidRequest,
    RerankError,
)
from service.gateway.admission.authentication import Caller, caller_of
from service.gateway.admission.queue import AdmissionQueue
from service.gateway.admission.quotas import Quotas, QuotaTicket
from service.gateway.admission.worker_wait import WorkerWait
from service.gateway.cascades.reranking import CascadeReranker
from service.gateway.dialects.dialect import Dialect
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.request_metrics import count_query, count_result
from service.gateway.request_reading import RequestReader
from service.limits import Limits
from service.observability.request_context import add_log_fields, request_id, stage
from service.observability.score_metrics import short_digest
from service.web.asgi import until_answered, until_disconnect
from service.web.body_budget import BodyBudget, Reservation
from service.web.error_response import set_error_writer
from service.web.request_body import announced_bytes, expect_json, read_body
from service.wire import WorkerInfo

OnAnswer = Callable[[Caller, RerankQuery, RerankResult], None]
"""Called with the caller of a request, its query and its result."""


def ignore(caller: Caller, query: RerankQuery, result: RerankResult) -> None:
    """Leave an answer without effect."""


class RerankEndpoint:
    """Answers rerank requests of every dialect.

    `default_timeout` (seconds) holds for requests that name none. With `cache_shared`, tenants
    share cached scores. `answered` is called with each answer; it returns at once and never raises.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        worker_wait: WorkerWait,
        quotas: Quotas,
        body_budget: BodyBudget,
        reader: RequestReader,
        admission: AdmissionQueue,
        reranker: CascadeReranker,
        default_timeout: float,
        cache_shared: bool = False,
        answered: OnAnswer = ignore,
    ) -> None:
        self._limits = limits
        self._worker_wait = worker_wait
        self._quotas = quotas
        self._body_budget = body_budget
        self._reader = reader
        self._admission = admission
        self._reranker = reranker
        self._default_timeout = default_timeout
        self._cache_shared = cache_shared
        self._answered = answered

    async def serve(self, request: Request, dialects: Sequence[Dialect]) -> Response:
        """Answer a request in the first of some dialects that matches it; raises a `RerankError`
        where the request fails."""
        clock = asyncio.get_running_loop().time
        arrived = clock()
        caller = caller_of(request)
        # until the body is read, a failure counts as one of the dialect that takes any request
        add_log_fields(tenant=caller.name(), dialect=dialects[-1].name)

        expect_json(request)
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
                timeout = query.timeout_ms / 1000 if query.timeout_ms else self._default_timeout
                deadline = arrived + timeout
                has_waited = await self._wait_for_worker(request, caller, held.bytes, deadline)
                query, model = self._reader.with_model(caller, query)
            except (RerankError, ClientDisconnect):  # nothing was scored
                ticket.refund()
                raise

            add_log_fields(model=model.model, digest=short_digest(model.digest))
            try:
                work = self._answer(caller, query, model, deadline, patient=has_waited)
                result = await until_disconnect(request, work)
            finally:
                add_log_fields(deadline_left_ms=round((deadline - clock()) * 1000))

            count_result(query, result, clock() - arrived)
            with stage("order"):
                answer = dialect.respond(query, result, request_id.get())
                page = to_json(answer, exclude_none=True)
            self._answered(caller, query, result)
            return Response(
                held.replace_with(page),
                headers=dict(dialect.headers),
                media_type="application/json",
            )

    def _expect_room(self, caller: Caller) -> None:
        """Raise `NoWorker` or `Overloaded` where a request could not be served now."""
        self._worker_wait.expect_place(caller.scope)
        self._admission.expect_room(caller.scope)

    async def _wait_for_worker(
        self, request: Request, caller: Caller, size: int, deadline: float
    ) -> bool:
        """Wait until a worker is ready, as long as the client does; returns whether it took a
        wait."""
        if self._worker_wait.has_worker():  # as nearly always: no tasks for it
            return False
        return await until_disconnect(request, self._worker_wait.wait(caller.scope, size, deadline))

    async def _read(
        self,
        request: Request,
        held: Reservation,
        ticket: QuotaTicket,
        dialects: Sequence[Dialect],
    ) -> tuple[Dialect, RerankQuery]:
        """Read the body and build the query; errors are written in its dialect from then on."""

        def chosen(dialect: Dialect) -> None:
            set_error_writer(request, dialect.error_body)
            add_log_fields(dialect=dialect.name)

        dialect, query = await self._reader.read(
            await read_body(request, self._limits.max_body_bytes, held),
            dialects,
            request.headers,
            held,
            ticket,
            chosen,
        )
        return dialect, _of_path(query, request.path_params.get("model"))

    async def _answer(
        self,
        caller: Caller,
        query: RerankQuery,
        model: WorkerInfo,
        deadline: float,
        *,
        patient: bool,
    ) -> RerankResult:
        """Rerank once the request is admitted; a `patient` one has waited for a worker. A query
        that skips errors gets a result without scores where its deadline passes before."""
        try:
            return await self._rerank_admitted(caller, query, model, deadline, patient=patient)
        except DeadlineExceeded:
            if not query.skip_errors:
                raise

        errors: list[tuple[int, RerankError]] = []
        for index, document in enumerate(query.documents):
            error = document if isinstance(document, RerankError) else DeadlineExceeded()
            errors.append((index, error))
        return RerankResult(model, [], errors)

    async def _rerank_admitted(
        self,
        caller: Caller,
        query: RerankQuery,
        model: WorkerInfo,
        deadline: float,
        *,
        patient: bool,
    ) -> RerankResult:
        """Wait for admission by the request's estimated cost, and rerank."""
        if query.is_short():
            cost = self._reranker.cost(query, model)
        else:
            cost = await anyio.to_thread.run_sync(self._reranker.cost, query, model)
        expected_part = partial(self._reranker.expected_part, model, caller.scope)

        admission = self._admission.admit(
            cost, deadline, caller.scope, expected_part, patient=patient
        )
        async with admission as admitted:
            scope = "" if self._cache_shared else caller.scope
            result = await self._reranker.rerank(query, deadline, scope=scope, turns=admitted)

            computed = sum(not document.cached for document in result.ranked)
            admitted.computed = computed / len(query.documents)
            return result


def _of_path(query: RerankQuery, model: str | None) -> RerankQuery:
    """The query for the model that a path names, if it names one."""
    if model is None:
        return query
    if query.model not in (None, model):
        message = "This must equal the model that the path names, or be left out."
        raise InvalidRequest(message).at(("model",))
    return replace(query, model=model)
