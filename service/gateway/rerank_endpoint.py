"""The entry of a rerank request: caller, quota, room; then its answer.

The checks go from the cheapest to the dearest: what can be refused before the
body is read is refused then, and nothing of a body but its JSON is looked at before the request is
admitted. Invariant: whatever ends a request, all that it held is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import replace
from typing import Any

import anyio.to_thread
from fastapi import Request, Response
from pydantic import BaseModel

from service.api import Item, Limits
from service.errors import DeadlineExceeded, NoWorker, RerankError, UnsupportedMediaType
from service.gateway.admission.authentication import Caller, caller_of
from service.gateway.admission.queue import AdmissionQueue
from service.gateway.admission.quotas import Quotas, QuotaTicket
from service.gateway.costs import admission_cost
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.fleet.pool import WorkerPool
from service.gateway.model_names import ModelNames
from service.gateway.parsing.bodies import BodyReading
from service.gateway.request_metrics import count_query, count_result
from service.gateway.rerank import Reranker
from service.gateway.settings import GatewaySettings
from service.observability.metrics import SHED
from service.observability.request_context import add_log_fields, request_id, stage
from service.observability.score_metrics import short_digest
from service.web.asgi import until_answered, until_disconnect
from service.web.body_budget import BodyBudget, Held
from service.web.request_body import announced_bytes, read_body
from service.wire import WorkerInfo

Read = Callable[[dict[str, Any], Limits], RerankQuery]
Write = Callable[[RerankQuery, RerankResult, str], BaseModel]


class RerankEndpoint:
    """Takes requests in, each in its dialect, and has them answered."""

    def __init__(
        self,
        settings: GatewaySettings,
        reranker: Reranker,
        admission: AdmissionQueue,
        workers: WorkerPool,
    ) -> None:
        self._settings = settings
        self._limits = settings.limits()
        self._reranker = reranker
        self._admission = admission
        self._workers = workers
        self._names = ModelNames(workers, settings.model_aliases)
        self._quotas = Quotas()
        self._body_budget = BodyBudget(max(settings.max_bodies_bytes, settings.max_body_bytes))
        self._reading = BodyReading(self._limits)

    async def serve(
        self, request: Request, dialect: str, fields: Container[str], read: Read, write: Write
    ) -> Response:
        """Answer a request that `read` understands as `write` puts it; raises a `RerankError` where
        that fails.

        `fields` are those that `read` looks into: of others, the name is enough.
        """
        clock = asyncio.get_running_loop().time
        arrived = clock()
        caller = caller_of(request)
        add_log_fields(dialect=dialect, tenant=caller.name())
        _expect_json(request)
        self._expect_room(caller)
        announced = announced_bytes(request, self._limits.max_body_bytes)
        with self._quotas.ticket(caller.scope, caller.quota) as visit:
            held = until_answered(request).enter_context(
                self._body_budget.held(announced, caller.scope)
            )
            try:
                with stage("parse"):
                    ask = await self._read(request, held, visit, fields, read)
                count_query(ask)
                model = self._names.find(caller, ask.model)
            except RerankError:
                visit.refund()
                raise
            until = arrived + (ask.timeout_ms or self._settings.default_timeout_ms) / 1000
            add_log_fields(model=model.model, digest=short_digest(model.digest))
            try:
                outcome = await until_disconnect(
                    request, self._answer(caller, replace(ask, model=model.model), model, until)
                )
            finally:
                add_log_fields(deadline_left_ms=round((until - clock()) * 1000))
            count_result(ask, outcome, clock() - arrived)
            with stage("order"):
                answered = write(ask, outcome, request_id.get()).model_dump_json(exclude_none=True)
            return Response(held.hold_instead(answered.encode()), media_type="application/json")

    def _expect_room(self, caller: Caller) -> None:
        """Turn away whoever cannot be served, before it sends a body."""
        if not self._workers.ready():
            SHED.labels("no_worker").inc()
            raise NoWorker
        self._admission.expect_room(caller.scope)

    async def _read(
        self, request: Request, held: Held, visit: QuotaTicket, fields: Container[str], read: Read
    ) -> RerankQuery:
        """What is asked; the quota is charged before any document of it is built."""
        body = await read_body(request, self._limits.max_body_bytes, held)
        async with self._reading.turn(len(body)):
            outline = await self._reading.outline(body, fields)
            del body
            held.grow(outline.memory)
            visit.charge(outline.entries.get("documents", 1))
            return await self._reading.build(outline, read)

    async def _answer(
        self, caller: Caller, ask: RerankQuery, model: WorkerInfo, until: float
    ) -> RerankResult:
        """The outcome, once the request is admitted; where its time is over before, and it wants
        what there is, nothing."""
        readable = [document for document in ask.documents if isinstance(document, Item)]
        instruction = ask.instruction or model.default_instruction
        cost = await anyio.to_thread.run_sync(
            admission_cost, instruction, ask.query, readable, model
        )
        try:
            async with self._admission.admit(cost, until, caller.scope) as admitted:
                scope = "" if self._settings.cache_shared else caller.scope
                outcome = await self._reranker.rerank(ask, until, scope=scope, turns=admitted)
                admitted.computed = sum(not ranked.cached for ranked in outcome.ranked) / len(
                    ask.documents
                )
                return outcome
        except DeadlineExceeded:
            if not ask.skip_errors:
                raise
            errors = [
                each if isinstance(each, RerankError) else DeadlineExceeded()
                for each in ask.documents
            ]
            return RerankResult(model, [], list(enumerate(errors)))


def _expect_json(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise UnsupportedMediaType
