"""The worker's composition root and its HTTP: `POST /score`, `GET /info`, health.

Knows calls and an engine, no cache, no user, no tenant. Invariant: it is ready only after its
golden pairs came out as published, and a reply has one entry a document: scored, refused, or, where
time did not suffice, nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager

import anyio.to_thread
import msgspec
from fastapi import FastAPI, Request, Response

from service.errors import InvalidRequest, ModelNotFound, NoWorker, Overloaded
from service.observability.engine_metrics import (
    ENGINE_CALL_LIMIT,
    ENGINE_CALLS,
    ENGINE_PAIRS,
    ENGINE_TOKENS,
    STALLED_SECONDS,
)
from service.observability.exposition import metrics_page
from service.observability.metrics import SHED
from service.observability.request_context import add_log_fields, add_stage_seconds
from service.observability.score_metrics import short_digest
from service.observability.tracing import record_span
from service.web.asgi import (
    add_common_routes,
    draining,
    error_response,
    new_app,
    until_answered,
    until_disconnect,
)
from service.web.body_budget import BodyBudget
from service.web.request_body import announced_bytes, read_body
from service.wire import (
    MSGPACK,
    TIMEOUT_HEADER,
    ImageRule,
    Pixels,
    Refused,
    ScoreCall,
    Scored,
    ScoreReply,
    WorkerInfo,
)
from service.worker.call_reading import read_call
from service.worker.engines.base import Engine
from service.worker.lifecycle import WorkerState, run_lifecycle
from service.worker.settings import WorkerSettings

_MAX_TIMEOUT_MS = 3_600_000
_encode_reply = msgspec.msgpack.Encoder().encode


def _nothing() -> None:
    """Nobody asked to be told."""


def create_worker(
    settings: WorkerSettings,
    engine: Engine,
    *,
    on_ready: Callable[[], None] = _nothing,
    on_failure: Callable[[], None] = _nothing,
) -> FastAPI:
    """The worker's app around an engine that has not been started.

    It answers at once. Its lifespan starts the engine, and then calls `on_ready`, or `on_failure`
    where the model cannot be served; it closes the engine at the end.
    """
    state = WorkerState()
    STALLED_SECONDS.set_function(engine.stalled_seconds)
    ENGINE_CALL_LIMIT.set(settings.max_calls)
    body_budget = BodyBudget(max(settings.max_calls_bytes, settings.max_call_bytes), observed=False)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        living = asyncio.create_task(run_lifecycle(engine, settings, state, on_ready, on_failure))
        yield
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await engine.close()

    app = new_app(title="gmr-rerank worker", lifespan=lifespan)
    add_common_routes(
        app, is_ready=lambda: bool(state.served) and engine.healthy(), is_alive=engine.healthy
    )

    @app.post("/score")
    async def score(request: Request) -> Response:
        """Score a `ScoreCall`, in MessagePack."""
        until = asyncio.get_running_loop().time() + _timeout_ms(request) / 1000
        add_log_fields(dialect="worker")
        call = await _receive_call(request, body_budget, settings.max_call_bytes)
        info = _expect_served(state, call)
        add_log_fields(
            documents=len(call.documents),
            images=len(call.images),
            model=info.model,
            digest=short_digest(info.digest),
        )
        if state.calls >= settings.max_calls:
            SHED.labels("worker_full").inc()
            raise Overloaded
        with _taking(state) as turn:
            pairs = await until_disconnect(request, _collect(engine, call, until, turn))
        _count(pairs)
        return Response(
            _encode_reply(ScoreReply(info.digest, pairs, turn.timings)), media_type=MSGPACK
        )

    @app.get("/info")
    async def info() -> Response:
        """What is served here, the default model first. A worker that was told to end serves no new
        callers."""
        if not state.served or not engine.healthy() or draining(app):
            return error_response(NoWorker())  # a gateway's probe: no request has failed

        return Response(
            msgspec.json.encode(list(state.served.values())), media_type="application/json"
        )

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Prometheus' text format, or OpenMetrics."""
        return metrics_page(request)

    return app


async def _receive_call(request: Request, body_budget: BodyBudget, max_bytes: int) -> ScoreCall:
    """The call in a request's body, whose bytes count as held until the request has been
    answered."""
    announced = announced_bytes(request, max_bytes)
    held = until_answered(request).enter_context(body_budget.held(announced))
    body = await read_body(request, max_bytes, held)
    return await anyio.to_thread.run_sync(read_call, body)


class _CallTimer:
    """One call's time: until the engine begins with it, and from then on."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._came = time.perf_counter()
        self._begun: float | None = None

    def begin(self) -> None:
        """The engine begins with the call, on whatever thread; only the first time tells."""
        if self._begun is None:
            self._begun = time.perf_counter()

    def end(self) -> None:
        """The call has ended."""
        now = time.perf_counter()
        begun = now if self._begun is None else self._begun
        self.timings = {"queue": begun - self._came, "engine": now - begun}
        for name, seconds in self.timings.items():
            add_stage_seconds(name, seconds)
        record_span("queue", self._came, begun)
        record_span("engine", begun, now)


@contextmanager
def _taking(state: WorkerState) -> Iterator[_CallTimer]:
    """Hold one call's place, and measure its time."""
    turn = _CallTimer()
    state.calls += 1
    ENGINE_CALLS.set(state.calls)
    try:
        yield turn
    finally:
        state.calls -= 1
        ENGINE_CALLS.set(state.calls)
        turn.end()


async def _collect(
    engine: Engine, call: ScoreCall, until: float, turn: _CallTimer
) -> list[Scored | Refused | None]:
    """The verdicts that come before `until`."""
    pairs: list[Scored | Refused | None] = [None] * len(call.documents)
    left = len(pairs)
    ENGINE_PAIRS.inc(left)
    try:
        async with asyncio.timeout_at(until), aclosing(engine.score(call, turn.begin)) as verdicts:
            async for index, verdict in verdicts:
                pairs[index] = verdict
                left -= 1
                ENGINE_PAIRS.dec()
    except TimeoutError:
        pass
    finally:
        ENGINE_PAIRS.dec(left)
    return pairs


def _count(pairs: Sequence[Scored | Refused | None]) -> None:
    scored = [pair for pair in pairs if isinstance(pair, Scored)]
    reused = sum(pair.reused_tokens for pair in scored)
    ENGINE_TOKENS.labels("prefix").inc(reused)
    ENGINE_TOKENS.labels("computed").inc(sum(pair.prompt_tokens for pair in scored) - reused)


def _complete(call: ScoreCall, rule: ImageRule | None) -> bool:
    """Every image that is named is there, and each has sides that the model reads and as many bytes
    as they say. A model of text reads none."""
    if rule is None and call.images:
        return False
    named: set[int] = set()
    for item in (call.query, *call.documents):
        named.update(part for part in item if isinstance(part, int))
    return named <= set(range(len(call.images))) and all(
        _readable(image, rule) for image in call.images
    )


def _readable(image: Pixels, rule: ImageRule | None) -> bool:
    cell = rule.cell if rule else 1
    return (
        min(image.width, image.height) > 0
        and image.width % cell == image.height % cell == 0
        and len(image.rgb) == 3 * image.width * image.height
    )


def _timeout_ms(request: Request) -> int:
    given = request.headers.get(TIMEOUT_HEADER, "")
    return (
        min(int(given), _MAX_TIMEOUT_MS)
        if given.isascii() and given.isdecimal()
        else _MAX_TIMEOUT_MS
    )


def _expect_served(state: WorkerState, call: ScoreCall) -> WorkerInfo:
    if not state.served:
        raise NoWorker
    info = state.served.get(call.model)
    if info is None:
        raise ModelNotFound
    if not _complete(call, info.images):
        raise InvalidRequest
    return info
