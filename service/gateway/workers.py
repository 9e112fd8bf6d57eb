"""The workers of a gateway: what each serves, how loaded it is, and which of them a request's shares are given to.

Knows workers' addresses and what they say of themselves, nothing of HTTP from outside, caches or images. Invariant: a worker's
load is the estimated cost of what it has been given and has not answered, and a call is offered to `ATTEMPTS` workers at most.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

import httpx

from service.contracts import ScoreCall, ScoreReply, WorkerInfo
from service.errors import InvalidRequest, ModelNotFound, NoWorker, Overloaded, RerankError, WorkerFailed
from service.gateway.calls import get_served, post_score
from service.gateway.routing import hash_order, idle_enough, within_bound
from service.telemetry import SPLIT, WORKER_CALLS, say

ATTEMPTS = 2
"""Workers that one call is offered to."""
LOOK_SECONDS = 1.0
"""How often a ready worker is asked what it serves; one that is not ready is asked more often."""
RETRY_LOOK_SECONDS = 0.2

Split = Literal["auto", "always", "never"]
"""When a request is split over several workers: where that is faster, wherever several are idle, or never."""


@dataclass(slots=True, eq=False)
class Worker:
    """One worker: its client, its address, what it serves (nothing until it is ready), and the cost of what it is at."""

    client: httpx.AsyncClient
    name: str
    serves: tuple[WorkerInfo, ...] = ()
    load: int = 0

    def model(self, name: str) -> WorkerInfo | None:
        """What it serves under a name."""
        return next((info for info in self.serves if info.model == name), None)


@dataclass(frozen=True, slots=True)
class Work:
    """What routing weighs: a model as one digest has it, a key that equal prefixes share, and tokens."""

    model: WorkerInfo
    key: bytes
    prefix: int
    suffixes: Sequence[int]


class Workers:
    """The workers of one gateway. Use as `async with workers.watched():`."""

    def __init__(self, clients: Sequence[httpx.AsyncClient], *, affinity: bool = True, split: Split = "auto") -> None:
        self._workers = [Worker(client, str(client.base_url)) for client in clients]
        self._affinity = affinity
        self._split = split

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
        return any(worker.serves for worker in self._workers)

    def names(self) -> list[str]:
        """The names of the models that are served, each once."""
        return sorted({info.model for worker in self._workers for info in worker.serves})

    def model(self, name: str | None = None, digest: str | None = None) -> WorkerInfo:
        """What is served under a name (None: the default model of the first ready worker); raises `NoWorker`, `ModelNotFound`.

        Where workers have it in several digests, the wanted one, or that of most workers.
        """
        served = [info for worker in self._workers for info in worker.serves]
        if not served:
            raise NoWorker
        named = [info for info in served if info.model == (served[0].model if name is None else name)]
        if not named:
            raise ModelNotFound
        chosen = _prevalent([info.digest for info in named], digest)
        return next(info for info in named if info.digest == chosen)

    @contextmanager
    def seats(self, work: Work) -> Iterator[list[Seat]]:
        """Places at the workers that are to share the work, one or several; raises `NoWorker` where there is none."""
        able = self._in_order(work)
        if not able:
            raise NoWorker
        loads = [worker.load for worker in able]
        suffix = sum(work.suffixes)
        places: list[int] = []
        if self._split != "never":
            places = idle_enough(loads, work.prefix, suffix, always=self._split == "always")[: len(work.suffixes)]
        if len(places) < 2:
            places = [within_bound(loads, work.prefix + suffix) if self._affinity else 0]
        SPLIT.observe(len(places))
        seats = [Seat(self, work, able[place], work.prefix + suffix // len(places)) for place in places]
        try:
            yield seats
        finally:
            for seat in seats:
                seat.leave()

    def after(self, work: Work, tried: Collection[Worker], cost: int) -> Worker | None:
        """The next worker in the work's order that may take it, those that were tried left out."""
        able = self._in_order(work, tried)
        return able[within_bound([worker.load for worker in able], cost)] if able else None

    def _in_order(self, work: Work, tried: Collection[Worker] = ()) -> list[Worker]:
        """Who else serves the model as wanted, in the order of the work's key; in another digest, where none has that one."""
        others = [worker for worker in self._workers if worker not in tried]
        named = [(worker, info.digest) for worker in others if (info := worker.model(work.model.model))]
        chosen = _prevalent([digest for _, digest in named], work.model.digest)
        able = [worker for worker, digest in named if digest == chosen]
        if not self._affinity:
            return sorted(able, key=lambda worker: (worker.load, random.random()))
        return [able[place] for place in hash_order(work.key, [worker.name for worker in able])]

    async def look(self, worker: Worker) -> None:
        """Ask a worker what it serves."""
        serves = await get_served(worker.client)
        if serves != worker.serves:
            served = ",".join(f"{info.model}@{info.digest}" for info in serves)
            say("worker changed", worker=worker.name, serves=served or None)
        worker.serves = serves

    async def _watch(self, worker: Worker) -> None:
        while True:
            await self.look(worker)
            await asyncio.sleep(LOOK_SECONDS if worker.serves else RETRY_LOOK_SECONDS)


def _prevalent(digests: Sequence[str], wanted: str | None) -> str | None:
    """The wanted one, else the one that occurs most, else the first."""
    counts = Counter(digests)
    return max(counts, key=lambda digest: (digest == wanted, counts[digest]), default=None)


class Seat:
    """A share's place at a worker, whose load it is. Where the worker fails, the seat moves to the next in the work's order."""

    def __init__(self, workers: Workers, work: Work, worker: Worker, cost: int) -> None:
        self._workers = workers
        self._work = work
        self._worker = worker
        self._cost = cost
        worker.load += cost

    async def score(self, call: ScoreCall, cost: int, until: float) -> ScoreReply:
        """Have the seat's worker answer before `until` (event loop time); if it fails or has no room, one other.

        `cost` is what of the seat's own is done when the call is answered.
        """
        failure: RerankError = NoWorker()
        tried: list[Worker] = []
        while len(tried) < ATTEMPTS and (worker := self._settle(tried)):
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
                self._give_back(cost)
                return reply
        raise failure

    def leave(self) -> None:
        """Take what is left of the seat's cost off the worker's load."""
        self._give_back(self._cost)

    async def _call(self, worker: Worker, call: ScoreCall, until: float) -> ScoreReply:
        try:
            reply = await post_score(worker.client, call, until)
        except httpx.HTTPError as error:
            say("worker unreachable", logging.WARNING, worker=worker.name, kind=type(error).__name__)
            worker.serves = ()
            raise WorkerFailed from None
        served = worker.model(call.model)
        if served and reply.digest != served.digest:
            await self._workers.look(worker)
        return reply

    def _settle(self, tried: Sequence[Worker]) -> Worker | None:
        """The seat's worker. If it was tried or serves the model no more, the seat moves first; None: there is nobody left."""
        here = self._worker
        if here not in tried and here.model(self._work.model.model):
            return here
        following = self._workers.after(self._work, [here, *tried], self._cost)
        if following:
            here.load -= self._cost
            following.load += self._cost
            self._worker = following
        return following

    def _give_back(self, cost: int) -> None:
        cost = min(cost, self._cost)
        self._cost -= cost
        self._worker.load -= cost
