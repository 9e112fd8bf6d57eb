"""The worker's app: `POST /score`, `GET /info`, metrics and health, around an engine.

Depends on calls and an engine, not on caches, users or tenants. Invariant: it is ready only after
its golden pairs came out as published, and a reply has one entry a document: scored, refused, or
nothing where the deadline came first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import anyio.to_thread
import msgspec
from fastapi import FastAPI, Request, Response

from service.errors import ModelNotFound, NoWorker
from service.observability.engine_metrics import ENGINE_PAIRS, ENGINE_TOKENS, STALLED_SECONDS
from service.observability.exposition import metrics_page
from service.observability.metric_types import follow
from service.observability.request_context import add_log_fields
from service.observability.score_metrics import short_digest
from service.web.asgi import (
    add_common_routes,
    draining,
    new_app,
    until_answered,
    until_disconnect,
)
from service.web.body_budget import BodyBudget
from service.web.error_response import error_response
from service.web.request_body import announced_bytes, read_body
from service.wire import (
    MSGPACK,
    TIMEOUT_HEADER,
    Refused,
    ScoreCall,
    Scored,
    ScoreReply,
    WorkerInfo,
)
from service.worker.call_limit import CallLimit
from service.worker.call_reading import expect_images, read_call
from service.worker.engines.base import Begin, Engine
from service.worker.lifecycle import ServedModels, run_lifecycle
from service.worker.picture_store import PictureStore
from service.worker.settings import WorkerSettings

_MAX_TIMEOUT_MS = 3_600_000
_encode_reply = msgspec.msgpack.Encoder().encode


def _do_nothing() -> None:
    """The default of both callbacks."""


def create_worker(
    settings: WorkerSettings,
    engine: Engine,
    *,
    on_ready: Callable[[], None] = _do_nothing,
    on_failure: Callable[[], None] = _do_nothing,
) -> FastAPI:
    """The worker's app around an engine that has not been started.

    It answers at once. Its lifespan starts the engine, and then calls `on_ready`, or `on_failure`
    where the model cannot be served; it closes the engine at the end.
    """
    served = ServedModels()
    pictures = PictureStore(settings.picture_store_bytes)
    call_limit = CallLimit(settings.max_calls)
    body_budget = BodyBudget(max(settings.max_calls_bytes, settings.max_call_bytes), observed=False)
    follow(STALLED_SECONDS, engine.stalled_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lifecycle = asyncio.create_task(
            run_lifecycle(engine, settings, served, on_ready, on_failure)
        )
        yield
        lifecycle.cancel()
        await asyncio.gather(lifecycle, return_exceptions=True)
        await engine.close()

    def is_ready() -> bool:
        return bool(served.by_name) and engine.healthy()

    app = new_app(title="gmr-rerank worker", lifespan=lifespan)
    add_common_routes(app, is_ready=is_ready, is_alive=engine.healthy)

    @app.post("/score")
    async def score(request: Request) -> Response:
        """Score a `ScoreCall`, in MessagePack."""
        deadline = asyncio.get_running_loop().time() + _timeout_seconds(request)
        add_log_fields(dialect="worker")
        call = await _receive_call(request, body_budget, settings.max_call_bytes)
        info = _model_of(call, served)
        expect_images(call, info.images)
        _log_call(call, info)

        with call_limit.admitted() as timer, pictures.completed(call) as completed:
            scoring = _score_until(deadline, engine, completed.call, timer.begin)
            pairs = completed.verdicts(await until_disconnect(request, scoring))

        _count_tokens(pairs)
        reply = ScoreReply(info.digest, pairs, timer.timings)
        return Response(_encode_reply(reply), media_type=MSGPACK)

    @app.get("/info")
    async def info() -> Response:
        """The models that are served, the default one first; 503 once the process drains, so that
        gateways send no further calls."""
        if not is_ready() or draining(app):
            return error_response(NoWorker())  # a gateway's probe: no request has failed

        models = list(map(pictures.described, served.by_name.values()))
        return Response(msgspec.json.encode(models), media_type="application/json")

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Prometheus' text format, or OpenMetrics."""
        return await metrics_page(request)

    return app


async def _receive_call(request: Request, body_budget: BodyBudget, max_bytes: int) -> ScoreCall:
    """The call in a request's body. Its bytes count against the budget until the request has been
    answered."""
    announced = announced_bytes(request, max_bytes)
    held = until_answered(request).enter_context(body_budget.reserve(announced))
    body = await read_body(request, max_bytes, held)
    return await anyio.to_thread.run_sync(read_call, body)


def _log_call(call: ScoreCall, info: WorkerInfo) -> None:
    """Add the size and the model of a call to the request's log line."""
    add_log_fields(
        documents=len(call.documents),
        images=len(call.images),
        model=info.model,
        digest=short_digest(info.digest),
    )


def _model_of(call: ScoreCall, served: ServedModels) -> WorkerInfo:
    """The model that a call names; raises `NoWorker` before any is served, `ModelNotFound` for
    another one."""
    if not served.by_name:
        raise NoWorker
    try:
        return served.by_name[call.model]
    except KeyError:
        raise ModelNotFound from None


async def _score_until(
    deadline: float, engine: Engine, call: ScoreCall, begin: Begin
) -> list[Scored | Refused | None]:
    """The verdicts that come before the deadline, in the order of documents; None for the rest."""
    pairs: list[Scored | Refused | None] = [None] * len(call.documents)
    missing = len(pairs)
    ENGINE_PAIRS.inc(missing)
    try:
        async with asyncio.timeout_at(deadline), aclosing(engine.score(call, begin)) as verdicts:
            async for index, verdict in verdicts:
                pairs[index] = verdict
                missing -= 1
                ENGINE_PAIRS.dec()
    except TimeoutError:
        pass
    finally:
        ENGINE_PAIRS.dec(missing)
    return pairs


def _count_tokens(pairs: Sequence[Scored | Refused | None]) -> None:
    prompt_tokens = reused_tokens = 0
    for pair in pairs:
        if isinstance(pair, Scored):
            prompt_tokens += pair.prompt_tokens
            reused_tokens += pair.reused_tokens
    ENGINE_TOKENS.labels("prefix").inc(reused_tokens)
    ENGINE_TOKENS.labels("computed").inc(prompt_tokens - reused_tokens)


def _timeout_seconds(request: Request) -> float:
    """The time that a gateway gives the call; an hour where it gives none, or more."""
    text = request.headers.get(TIMEOUT_HEADER, "")
    milliseconds = _MAX_TIMEOUT_MS
    if text.isascii() and text.isdecimal():
        milliseconds = min(int(text), _MAX_TIMEOUT_MS)
    return milliseconds / 1000
