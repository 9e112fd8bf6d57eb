"""The worker client: which worker, one call, its deadline, and one more try elsewhere.

Knows workers' addresses and what they say of themselves, nothing of HTTP from outside, caches or images. Invariant: a reply is
handed on only if it came in time and has one entry a document, each finite.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import msgspec

from service.contracts import MSGPACK, REQUEST_ID_HEADER, TIMEOUT_HEADER, UNREADABLE, ScoreCall, Scored, ScoreReply, WorkerInfo
from service.errors import (
    BY_CODE,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NoWorker,
    Overloaded,
    RerankError,
    WorkerFailed,
)
from service.telemetry import WORKER_CALLS, note, request_id, say

REPLY_MARGIN = 0.05
"""Share of the remaining time that a worker is not given, so that its partial reply still arrives in time."""
MAX_MARGIN_SECONDS = 0.25
ATTEMPTS = 2
"""Workers that one call is offered to."""
LOOK_SECONDS = 1.0
"""How often a ready worker is asked what it serves; one that is not ready is asked more often."""
RETRY_LOOK_SECONDS = 0.2
LOOK_TIMEOUT_SECONDS = 2.0

_encode = msgspec.msgpack.Encoder().encode
_reply_decoder = msgspec.msgpack.Decoder(ScoreReply)
_info_decoder = msgspec.json.Decoder(WorkerInfo)


@dataclass(slots=True)
class Worker:
    """One worker: its client, what it serves (None until it is ready), and how many calls it has."""

    client: httpx.AsyncClient
    info: WorkerInfo | None = None
    calls: int = 0


class Workers:
    """The workers of one gateway. Use as `async with workers.watched():`."""

    def __init__(self, clients: Sequence[httpx.AsyncClient]) -> None:
        self._workers = [Worker(client) for client in clients]

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep an eye on every worker while the context lasts."""
        watchers = [asyncio.create_task(self._watch(worker)) for worker in self._workers]
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await asyncio.gather(*(worker.client.aclose() for worker in self._workers))

    def ready(self) -> bool:
        return any(worker.info for worker in self._workers)

    def names(self) -> list[str]:
        """The names of the models that are served, each once."""
        return sorted({worker.info.model for worker in self._workers if worker.info})

    def model(self, name: str | None = None) -> WorkerInfo:
        """What is served under a name (None: the served one); raises `NoWorker` or `ModelNotFound`."""
        served = [worker.info for worker in self._workers if worker.info]
        if not served:
            raise NoWorker
        for info in served:
            if name in (None, info.model):
                return info
        raise ModelNotFound

    async def score(self, call: ScoreCall, until: float) -> ScoreReply:
        """Have one worker answer before `until` (event loop time); if it fails or has no room, one other."""
        failure: RerankError = NoWorker()
        tried: list[Worker] = []
        while len(tried) < ATTEMPTS and (worker := self._choose(call.model, tried)):
            tried.append(worker)
            try:
                reply = await self._call(worker, call, until)
            except (WorkerFailed, NoWorker, Overloaded) as error:
                WORKER_CALLS.labels(error.code).inc()
                failure = error
            except InvalidRequest:  # another worker would refuse it too
                WORKER_CALLS.labels("refused").inc()
                raise WorkerFailed from None
            else:
                WORKER_CALLS.labels("ok").inc()
                return reply
        raise failure

    def _choose(self, model: str, tried: Sequence[Worker]) -> Worker | None:
        """The least busy worker that serves the model and was not tried yet."""
        able = [worker for worker in self._workers if worker.info and worker.info.model == model and worker not in tried]
        return min(able, key=lambda worker: worker.calls, default=None)

    async def _call(self, worker: Worker, call: ScoreCall, until: float) -> ScoreReply:
        left = until - asyncio.get_running_loop().time()
        allowed = left - min(left * REPLY_MARGIN, MAX_MARGIN_SECONDS)
        if allowed <= 0:
            raise DeadlineExceeded
        headers = {"content-type": MSGPACK, TIMEOUT_HEADER: str(math.ceil(allowed * 1000)), REQUEST_ID_HEADER: request_id.get()}
        worker.calls += 1
        try:
            async with asyncio.timeout_at(until):
                response = await worker.client.post("/score", content=_encode(call), headers=headers)
        except TimeoutError:
            raise DeadlineExceeded from None
        except httpx.HTTPError as error:
            say("worker unreachable", logging.WARNING, worker=str(worker.client.base_url), kind=type(error).__name__)
            worker.info = None
            raise WorkerFailed from None
        finally:
            worker.calls -= 1
        reply = _reply(response, len(call.documents))
        if worker.info and reply.digest != worker.info.digest:
            await self._look(worker)
        for name, seconds in reply.timings.items():
            note(name, seconds)
        return reply

    async def _watch(self, worker: Worker) -> None:
        while True:
            await self._look(worker)
            await asyncio.sleep(LOOK_SECONDS if worker.info else RETRY_LOOK_SECONDS)

    async def _look(self, worker: Worker) -> None:
        """Ask a worker what it serves."""
        try:
            response = await worker.client.get("/info", timeout=LOOK_TIMEOUT_SECONDS)
            info = _info_decoder.decode(response.content) if response.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, *UNREADABLE):
            info = None
        if info != worker.info:
            say(
                "worker changed",
                worker=str(worker.client.base_url),
                serves=info.model if info else None,
                digest=info and info.digest,
            )
        worker.info = info


def _reply(response: httpx.Response, documents: int) -> ScoreReply:
    """The reply if it is a whole and sane one; raises what the worker said, or `WorkerFailed`."""
    if response.status_code != httpx.codes.OK:
        raise _told(response)
    try:
        reply = _reply_decoder.decode(response.content)
    except UNREADABLE:
        raise WorkerFailed from None
    if len(reply.pairs) != documents or not all(math.isfinite(pair.logit) for pair in reply.pairs if isinstance(pair, Scored)):
        raise WorkerFailed
    return reply


def _told(response: httpx.Response) -> RerankError:
    """The error that a worker answered with, where it concerns the client; else the call is wrong, or the worker has failed."""
    try:
        code = msgspec.json.decode(response.content, type=dict[str, object]).get("code")
    except UNREADABLE:
        code = None
    kind = BY_CODE.get(code) if isinstance(code, str) else None
    if kind in (Overloaded, NoWorker, DeadlineExceeded, ModelNotFound) and kind:
        return kind()
    return InvalidRequest() if response.is_client_error else WorkerFailed()
