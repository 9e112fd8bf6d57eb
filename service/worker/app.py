"""The worker's composition root and its HTTP: `POST /score`, `GET /info`, health.

Knows calls and a scorer, no cache, no user, no tenant. Invariant: it is ready only after its golden pairs came out as published,
and a reply has one entry a document: scored, refused, or, where time did not suffice, nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio.to_thread
import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from model_store.manifest import CheckpointUnusable
from model_store.registry import resolve, resolve_adapter
from service.asgi import draining, prepare, read_body, unless_gone
from service.contracts import MSGPACK, TIMEOUT_HEADER, UNREADABLE, Refused, ScoreCall, Scored, ScoreReply, WorkerInfo
from service.errors import InvalidRequest, ModelNotFound, NoWorker, Overloaded
from service.telemetry import MODEL, SHED, say
from service.worker.golden import check_golden, golden_pairs
from service.worker.scorers.base import CannotLoad, Scorer
from service.worker.scorers.loading import create_scorer
from service.worker.settings import WorkerSettings

_MAX_TIMEOUT_MS = 3_600_000
_LOOK_SECONDS = 0.5
_decode_call = msgspec.msgpack.Decoder(ScoreCall).decode
_encode_reply = msgspec.msgpack.Encoder().encode


def _nothing() -> None:
    """Nobody asked to be told."""


@dataclass(slots=True)
class _State:
    """What the worker knows of itself: `served`, by name, is empty until it is ready."""

    served: dict[str, WorkerInfo] = field(default_factory=dict)
    calls: int = 0


def create_worker(
    settings: WorkerSettings, *, on_ready: Callable[[], None] = _nothing, on_failure: Callable[[], None] = _nothing
) -> FastAPI:
    """The worker's app. It answers at once; when its model is loaded it turns ready, or is known never to be."""
    scorer = create_scorer(settings)
    state = _State()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        living = asyncio.create_task(_live(scorer, settings, state, on_ready, on_failure))
        yield
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await scorer.close()

    app = FastAPI(title="gmr-rerank worker", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    prepare(app, is_ready=lambda: bool(state.served) and scorer.healthy(), is_alive=scorer.healthy)

    @app.post("/score")
    async def score(request: Request) -> Response:
        """Score a `ScoreCall`, in MessagePack."""
        until = asyncio.get_running_loop().time() + _timeout_ms(request) / 1000
        call = await _read_call(request, settings.max_call_bytes)
        info = _expect_served(state, call)
        if state.calls >= settings.max_calls:
            SHED.labels("worker_full").inc()
            raise Overloaded
        state.calls += 1
        try:
            start = time.perf_counter()
            pairs = await unless_gone(request, _collect(scorer, call, until))
        finally:
            state.calls -= 1
        reply = ScoreReply(info.digest, pairs, {"engine": time.perf_counter() - start})
        return Response(_encode_reply(reply), media_type=MSGPACK)

    @app.get("/info")
    async def info() -> Response:
        """What is served here, the default model first. A worker that was told to end serves no new callers."""
        if not state.served or not scorer.healthy() or draining(app):
            raise NoWorker
        return Response(msgspec.json.encode(list(state.served.values())), media_type="application/json")

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _live(
    scorer: Scorer, settings: WorkerSettings, state: _State, on_ready: Callable[[], None], on_failure: Callable[[], None]
) -> None:
    """Start the scorer, let the golden pairs decide, and from then on keep an eye on its engine."""
    start = time.perf_counter()
    try:
        served, worst = await _load(scorer, settings)
    except (CheckpointUnusable, CannotLoad) as failure:
        say(str(failure), logging.ERROR)
        on_failure()
        return
    except MemoryError:
        say("There is not enough memory to load the model.", logging.ERROR)
        on_failure()
        return
    except Exception as failure:
        say("the model failed to load", logging.ERROR, failure=failure)
        on_failure()
        return
    for info in served:
        say("model ready", model=info.model, digest=info.digest, engine=info.engine, device=info.device, dtype=info.dtype)
    MODEL.info({"model": served[0].model, "digest": served[0].digest, "engine": served[0].engine, "dtype": served[0].dtype})
    say("ready", golden_drift=worst, seconds=round(time.perf_counter() - start, 1))
    state.served = {info.model: info for info in served}
    on_ready()
    while not scorer.ended():
        await asyncio.sleep(_LOOK_SECONDS)
    say("the engine has ended", logging.ERROR)
    on_failure()


async def _load(scorer: Scorer, settings: WorkerSettings) -> tuple[list[WorkerInfo], float]:
    """What is served, and how far golden pairs were off at most; raises `CheckpointUnusable` or `CannotLoad`."""
    real = not settings.random_weights
    checkpoint = await anyio.to_thread.run_sync(
        lambda: resolve(
            settings.model,
            revision=settings.model_revision,
            cache=settings.model_cache,
            registry=settings.registry,
            weights=real,
        ),
        abandon_on_cancel=True,  # nobody waits for checksums when the process is told to end
    )
    if checkpoint.name in settings.adapters:
        raise CannotLoad(f"An adapter cannot be named {checkpoint.name}, as the model is.")
    adapter = partial(resolve_adapter, cache=settings.model_cache, registry=settings.registry, model=checkpoint)
    adapters = [await anyio.to_thread.run_sync(adapter, *named) for named in settings.adapters.items()]
    served = await scorer.start(checkpoint, adapters)
    if not real:
        say("the weights are random: timings mean something, scores do not", logging.WARNING)
        return served, 0.0
    folders = [checkpoint.folder, *(adapter.folder for adapter in adapters)]
    drifts = [
        await check_golden(scorer, info, golden_pairs(folder), settings.golden_tolerance)
        for info, folder in zip(served, folders, strict=True)
    ]
    return served, max(drifts)


async def _collect(scorer: Scorer, call: ScoreCall, until: float) -> list[Scored | Refused | None]:
    """The verdicts that come before `until`."""
    pairs: list[Scored | Refused | None] = [None] * len(call.documents)
    try:
        async with asyncio.timeout_at(until), aclosing(scorer.score(call)) as verdicts:
            async for index, verdict in verdicts:
                pairs[index] = verdict
    except TimeoutError:
        pass
    return pairs


async def _read_call(request: Request, max_bytes: int) -> ScoreCall:
    body = await read_body(request, max_bytes)
    try:
        return await anyio.to_thread.run_sync(_decode_call, body)
    except UNREADABLE:
        raise InvalidRequest from None


def _complete(call: ScoreCall, cell: int) -> bool:
    """Every image that is named is there, and each has sides that the model reads and as many bytes as they say."""
    named = {part for item in (call.query, *call.documents) for part in item if isinstance(part, int)}
    return named <= set(range(len(call.images))) and all(
        min(image.width, image.height) > 0
        and image.width % cell == image.height % cell == 0
        and len(image.rgb) == 3 * image.width * image.height
        for image in call.images
    )


def _timeout_ms(request: Request) -> int:
    given = request.headers.get(TIMEOUT_HEADER, "")
    return min(int(given), _MAX_TIMEOUT_MS) if given.isascii() and given.isdecimal() else _MAX_TIMEOUT_MS


def _expect_served(state: _State, call: ScoreCall) -> WorkerInfo:
    if not state.served:
        raise NoWorker
    info = state.served.get(call.model)
    if info is None:
        raise ModelNotFound
    if not _complete(call, info.images.cell):
        raise InvalidRequest
    return info
