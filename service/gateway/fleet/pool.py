"""The workers of a gateway: where they are, what they serve, and which of them a request's shares
are given to.

Knows who there is and in which order they stand; how each fares is its own business, and nothing is
known of HTTP from outside, caches or images. Invariant: a share goes to a worker that said it
serves the model, and, while there is a choice, to one that lately answered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from random import random
from typing import Literal

import httpx

from service.errors import ModelNotFound, NoWorker
from service.gateway.fleet.discovery import DnsName
from service.gateway.fleet.dispatch import RetryPolicy, ShareDispatch
from service.gateway.fleet.member import STATES, HealthCheckPolicy, PoolMember, State
from service.gateway.fleet.routing import hash_order, idle_enough, within_bound
from service.observability.logs import log
from service.observability.metrics import MODEL_WORKERS, REQUEST_WORKERS, WORKERS
from service.observability.score_metrics import short_digest
from service.wire import WorkerInfo

RETRY_LOOK_UP_SECONDS = 0.5
"""How soon a name is looked up again that has not been resolved."""
MOST_MODELS = 64
"""Models, each digest apart, that metrics tell apart."""
MAX_NAME = 64
"""Characters of a model's name in metrics."""

Split = Literal["auto", "always", "never"]
"""When a request is split over several workers: where that is faster, wherever several are idle, or
never."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What routing weighs: a model as one digest has it, a key that equal prefixes share, and
    tokens."""

    model: WorkerInfo
    key: bytes
    prefix: int
    suffixes: Sequence[int]


class WorkerPool:
    """The workers of one gateway: one a client, and one an address of each name. Use as `async with
    workers.monitored():`."""

    def __init__(
        self,
        sources: Sequence[httpx.AsyncClient | DnsName],
        *,
        affinity: bool = True,
        split: Split = "auto",
        patience: HealthCheckPolicy | None = None,
        again: RetryPolicy | None = None,
    ) -> None:
        self._patience = patience or HealthCheckPolicy()
        self._again = again or RetryPolicy()
        self._workers = [
            PoolMember(each, self._patience)
            for each in sources
            if isinstance(each, httpx.AsyncClient)
        ]
        self._names = [each for each in sources if isinstance(each, DnsName)]
        self._affinity = affinity
        self._split = split
        self._tasks: set[asyncio.Task[None]] = set()
        for state in STATES:
            WORKERS.labels(state).set_function(partial(self._count, state))
        MODEL_WORKERS.set_function(self._models)

    @asynccontextmanager
    async def monitored(self) -> AsyncIterator[None]:
        """Keep an eye on every worker, and on who else there is, while the context lasts."""
        for worker in self._workers:
            self._begin(worker.monitor())
        for name in self._names:
            self._begin(self._follow(name))
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def ready(self) -> bool:
        return any(worker.serves for worker in self._workers)

    def count_ready(self) -> int:
        return sum(bool(worker.serves) for worker in self._workers)

    def names(self) -> list[str]:
        """The names of the models that are served, each once."""
        return sorted({info.model for worker in self._workers for info in worker.serves})

    def model(self, name: str | None = None, digest: str | None = None) -> WorkerInfo:
        """What is served under a name (None: the default model of the first ready worker); raises
        `NoWorker`, `ModelNotFound`.

        Where workers have it in several digests, the wanted one, or that of most workers.
        """
        served = [info for worker in self._workers for info in worker.serves]
        if not served:
            raise NoWorker
        named = [
            info for info in served if info.model == (served[0].model if name is None else name)
        ]
        if not named:
            raise ModelNotFound
        chosen = _prevalent([info.digest for info in named], digest)
        return next(info for info in named if info.digest == chosen)

    @contextmanager
    def dispatches(self, work: Workload) -> Iterator[list[ShareDispatch]]:
        """Places at the workers that are to share the work, one or several; raises `NoWorker` where
        there is none."""
        able = self._in_order(work)
        if not able:
            raise NoWorker
        loads = [worker.load for worker in able]
        suffix = sum(work.suffixes)
        places: list[int] = []
        if self._split != "never":
            places = idle_enough(loads, work.prefix, suffix, always=self._split == "always")[
                : len(work.suffixes)
            ]
        if len(places) < 2:
            places = [within_bound(loads, work.prefix + suffix) if self._affinity else 0]
        REQUEST_WORKERS.observe(len(places))
        following, cost = partial(self._after, work), work.prefix + suffix // len(places)
        seats = [
            ShareDispatch(able[place], work.model.model, cost, following, self._again)
            for place in places
        ]
        try:
            yield seats
        finally:
            for seat in seats:
                seat.leave()

    def _after(self, work: Workload, tried: Collection[PoolMember], cost: int) -> PoolMember | None:
        """The next worker in the work's order that may take it, those that were tried left out."""
        able = self._in_order(work, tried)
        return able[within_bound([worker.load for worker in able], cost)] if able else None

    def _in_order(self, work: Workload, tried: Collection[PoolMember] = ()) -> list[PoolMember]:
        """Who else serves the model as wanted, in the order of the work's key; in another digest,
        where none has that one.

        A worker whose breaker is open comes in where there is no other, and never for a second
        attempt: calls that fail everywhere are made once. One that is silent comes in where all
        are.
        """
        others = [worker for worker in self._workers if worker not in tried]
        named = [
            (worker, info.digest) for worker in others if (info := worker.model(work.model.model))
        ]
        named = [each for each in named if each[0].admits()] or ([] if tried else named)
        chosen = _prevalent([digest for _, digest in named], work.model.digest)
        able = [worker for worker, digest in named if digest == chosen]
        able = [worker for worker in able if not worker.unresponsive()] or able
        if not self._affinity:
            return sorted(able, key=lambda worker: (worker.load, random()))
        return [able[place] for place in hash_order(work.key, [worker.name for worker in able])]

    async def _follow(self, name: DnsName) -> None:
        """Keep a worker for every address of a name: who is new is watched, who is gone finishes
        what it has."""
        found: dict[str, PoolMember] = {}
        urls: list[str] | None = []
        while True:
            urls, before = await name.urls(), urls
            if urls != before:
                log(
                    "workers' name looked up",
                    host=name.host,
                    found=None if urls is None else len(urls),
                )
            if urls is not None:
                for gone in found.keys() - set(urls):
                    self._workers.remove(found[gone])
                    found.pop(gone).retire()
                for url in [each for each in urls if each not in found]:
                    found[url] = PoolMember(name.connect(url), self._patience)
                    self._workers.append(found[url])
                    self._begin(found[url].monitor())
            await asyncio.sleep(name.seconds if found else min(name.seconds, RETRY_LOOK_UP_SECONDS))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, state: State) -> int:
        return sum(worker.state() == state for worker in self._workers)

    def _models(self) -> dict[tuple[str, ...], int]:
        """How many workers serve each model and digest, the most served first; no more of them than
        a scrape should hold."""
        served = Counter(
            (info.model[:MAX_NAME], short_digest(info.digest))
            for worker in self._workers
            for info in worker.serves
        )
        return dict(served.most_common(MOST_MODELS))


def _prevalent(digests: Sequence[str], wanted: str | None) -> str | None:
    """The wanted one, else the one that occurs most, else the first."""
    counts = Counter(digests)
    return max(counts, key=lambda digest: (digest == wanted, counts[digest]), default=None)
