"""The stream's endpoint: the checks of a stream, and the answer to each of its lines.

Lines are background work: they wait where a request would be refused, for room, for a quota, or for
a worker, until their deadline. Depends on the steps of a rerank request, not on bytes or
connections. Invariant: a line that fails fails alone, and gives back everything that it holds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from fastapi import Request, Response

from service.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Internal,
    NoWorker,
    Overloaded,
    RateLimited,
    RerankError,
    UnsupportedMediaType,
)
from service.gateway.admission.authentication import Caller, caller_of
from service.gateway.admission.background import BackgroundQueue, BackgroundWork
from service.gateway.admission.quotas import REFUNDED, Quotas, QuotaTicket
from service.gateway.admission.worker_wait import WorkerWait
from service.gateway.cascades.reranking import CascadeReranker
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.fleet.pool import WorkerPool
from service.gateway.request_metrics import count_query, count_scored
from service.gateway.request_reading import RequestReader
from service.gateway.stream.bounds import StreamBounds
from service.gateway.stream.line_dialect import LINE_DIALECT, LineId, answer_line, error_line
from service.gateway.stream.lines import Line
from service.gateway.stream.response import MEDIA_TYPE, AnsweredLine, LineStream
from service.observability import tracing
from service.observability.logs import log
from service.observability.metrics import SHED, STREAMS
from service.observability.request_context import add_log_fields, request_id, timed_request
from service.web.asgi import draining, until_answered
from service.web.body_budget import BodyBudget, Reservation
from service.web.request_body import body_chunks

Result = TypeVar("Result")

STREAM_PATH = "/v1/rerank/stream"
_MEDIA_TYPES = frozenset(
    f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonlines", "jsonlines")
)
_WAITS = (Overloaded, NoWorker, RateLimited)
"""Errors that a line waits out."""
_PAUSE_SECONDS = (0.25, 0.75)
_ROOM_SECONDS = 0.05
_SCORED_A_WORKER = 4
"""Lines of a stream that take turns at the same time, for each worker: enough to keep it busy, and
few, so that a line is finished before later ones are begun."""


class RerankStream:
    """Answers streams, at most `max_streams` at once. With `cache_shared`, tenants share cached
    scores."""

    def __init__(
        self,
        *,
        pool: WorkerPool,
        worker_wait: WorkerWait,
        quotas: Quotas,
        body_budget: BodyBudget,
        reader: RequestReader,
        background: BackgroundQueue,
        reranker: CascadeReranker,
        bounds: StreamBounds,
        max_streams: int,
        cache_shared: bool = False,
    ) -> None:
        self._pool = pool
        self._worker_wait = worker_wait
        self._quotas = quotas
        self._body_budget = body_budget
        self._reader = reader
        self._background = background
        self._reranker = reranker
        self._bounds = bounds
        self._max_streams = max_streams
        self._cache_shared = cache_shared
        self._streams = 0

    async def serve(self, request: Request) -> Response:
        """The response to a stream; raises a `RerankError` where it cannot begin."""
        caller = caller_of(request)
        add_log_fields(tenant=caller.name())
        _expect_lines(request)
        chunks = body_chunks(request)
        self._worker_wait.expect_place(caller.scope)
        if draining(request.app):
            raise Overloaded("The service is shutting down.")

        stack = until_answered(request)
        stack.enter_context(self._counted())
        ticket = stack.enter_context(self._quotas.ticket(caller.scope, caller.quota))
        unfinished = stack.enter_context(self._body_budget.reserve(0, caller.scope))
        unsent = stack.enter_context(self._body_budget.reserve(0, caller.scope))

        async def hold(size: int) -> None:
            await _until_room(unfinished, size, _now() + self._bounds.idle_seconds)
            unfinished.resize(size)

        lines = _Lines(
            caller,
            ticket,
            request.headers,
            reader=self._reader,
            body_budget=self._body_budget,
            reranker=self._reranker,
            background=self._background,
            timeout=self._bounds.idle_seconds,
            cache_scope="" if self._cache_shared else caller.scope,
            scored_at_once=_SCORED_A_WORKER * max(1, self._pool.count_ready()),
        )
        return LineStream(
            request, chunks, self._bounds, lines.answer, hold=hold, reserve=unsent.add
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a stream while the context lasts; raises `Overloaded` where there are too many."""
        if self._streams >= self._max_streams:
            SHED.labels("streams").inc()
            raise Overloaded

        self._streams += 1
        STREAMS.set(self._streams)
        try:
            yield
        finally:
            self._streams -= 1
            STREAMS.set(self._streams)


class _Lines:
    """The lines of one stream; `timeout` (seconds) is that of lines that name none."""

    def __init__(
        self,
        caller: Caller,
        ticket: QuotaTicket,
        headers: Mapping[str, str],
        *,
        reader: RequestReader,
        body_budget: BodyBudget,
        reranker: CascadeReranker,
        background: BackgroundQueue,
        timeout: float,
        cache_scope: str,
        scored_at_once: int,
    ) -> None:
        self._caller = caller
        self._ticket = ticket
        self._headers = headers
        self._reader = reader
        self._body_budget = body_budget
        self._reranker = reranker
        self._background = background
        self._timeout = timeout
        self._cache_scope = cache_scope
        self._one_is_read = asyncio.Lock()
        self._scored_at_once = asyncio.Semaphore(scored_at_once)

    async def answer(self, line: Line, identity: LineId) -> AnsweredLine:
        """The answer to a line: its results, or its error."""
        stream_id, stream_span = request_id.get(), tracing.current_span()
        with (
            timed_request(stream_id),
            tracing.server_span(STREAM_PATH, (), trusted=True),
        ):
            line_span = _linked_to(stream_span)
            try:
                return AnsweredLine(await self._rerank(line, identity), "ok")
            except RerankError as failure:
                error: RerankError = failure
            except Exception as failure:
                log("line failed", logging.ERROR, failure=failure, request_id=stream_id)
                error = Internal()
            if line_span is not None:
                line_span.set_error(error.code)
            return AnsweredLine(error_line(error, stream_id, identity, line.number), error.code)

    async def _rerank(self, line: Line, identity: LineId) -> bytes:
        """The line that answers a line; raises a `RerankError` where it fails."""
        arrived, number = _now(), line.number
        if line.content is None:
            raise BodyTooLarge("The line is longer than this service accepts.")

        ticket = self._ticket.for_part()
        with self._body_budget.reserve(0, self._caller.scope) as held:
            async with self._one_is_read:
                query = await _waited_out(
                    lambda: self._read(line, held, ticket, arrived + self._timeout),
                    arrived + self._timeout,
                )

            deadline = arrived + (query.timeout_ms / 1000 if query.timeout_ms else self._timeout)
            try:
                query, result = await _waited_out(lambda: self._score(query, deadline), deadline)
            except REFUNDED:
                ticket.refund()
                raise
            count_scored(result)
            return answer_line(query, result, request_id.get(), identity, number)

    async def _read(
        self, line: Line, held: Reservation, ticket: QuotaTicket, deadline: float
    ) -> RerankQuery:
        """The query of a line, whose content is dropped."""
        content = line.content
        assert content is not None, "a line that is too long has no query"
        ticket.expect_credit()
        await _until_room(held, len(content), deadline)
        held.grow(len(content))

        _, query = await self._reader.read(content, (LINE_DIALECT,), self._headers, held, ticket)
        line.content = None
        count_query(query)
        return query

    async def _score(self, query: RerankQuery, deadline: float) -> tuple[RerankQuery, RerankResult]:
        """The query for its model, and its result."""
        query, model = self._reader.with_model(self._caller, query)
        scope = self._caller.scope
        expected_part = partial(self._reranker.expected_part, model, scope)
        turns = BackgroundWork(self._background, scope, expected_part)
        try:
            async with asyncio.timeout_at(deadline):
                await self._scored_at_once.acquire()
        except TimeoutError:
            raise DeadlineExceeded from None
        try:
            result = await self._reranker.rerank(
                query, deadline, scope=self._cache_scope, turns=turns
            )
        finally:
            self._scored_at_once.release()
        return query, result


async def _waited_out(attempt: Callable[[], Awaitable[Result]], deadline: float) -> Result:
    """The result of an attempt, which is repeated while it fails for load, a quota, or the want of
    a worker; raises that error at `deadline` (event loop time)."""
    while True:
        try:
            return await attempt()
        except _WAITS:
            pause = random.uniform(*_PAUSE_SECONDS)
            if _now() + pause >= deadline:
                raise
        await asyncio.sleep(pause)


async def _until_room(held: Reservation, size: int, deadline: float) -> None:
    """Wait until a reservation may have a size, or until `deadline` (event loop time)."""
    while not held.has_room(size) and _now() < deadline:
        await asyncio.sleep(_ROOM_SECONDS)


def _linked_to(stream_span: tracing.Span | None) -> tracing.Span | None:
    """The current span as that of a line, linked to the trace of its stream; None if it is not
    recorded."""
    span = tracing.current_span()
    if span is not None:
        span.rename("line of a stream")
        if stream_span is not None:
            span.add_link(stream_span.context)
    return span


def _now() -> float:
    return asyncio.get_running_loop().time()


def _expect_lines(request: Request) -> None:
    """Raise `UnsupportedMediaType` where the body is announced as something else than NDJSON."""
    content_type = request.headers.get("content-type", MEDIA_TYPE)
    if content_type.partition(";")[0].strip().lower() not in _MEDIA_TYPES:
        raise UnsupportedMediaType(f"Send the body as {MEDIA_TYPE}, a request a line.")
