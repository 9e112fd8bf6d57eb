"""The pool of a gateway's workers: its members, the models they serve, and the members that the
shares of a request go to.

Depends on the state of its members and on their order for a request, not on HTTP requests, caches
or images. Invariant: a share goes to a worker that serves its model and, while there is a choice,
to one that answered its last probe.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from random import random

import httpx

from service.errors import ModelNotFound, NoWorker
from service.gateway.fleet.discovery import DnsName
from service.gateway.fleet.dispatch import RetryPolicy, ShareDispatch
from service.gateway.fleet.member import (
    STATES,
    BreakerPolicy,
    HealthCheckPolicy,
    PoolMember,
    State,
)
from service.gateway.fleet.preferences import (
    admitting,
    of_one_digest,
    prefer,
    prevalent,
    responsive,
)
from service.gateway.fleet.routing import within_bound
from service.gateway.fleet.workload import Share, Split, Workload, even_shares, shares_at_homes
from service.observability.logs import log
from service.observability.metric_types import follow
from service.observability.metrics import MODEL_WORKERS, REQUEST_WORKERS, WORKERS
from service.observability.score_metrics import short_digest
from service.wire import WorkerInfo

RETRY_LOOK_UP_SECONDS = 0.5
"""Time until the next lookup of a name that has no address yet."""
MOST_MODELS = 64
"""Models, each digest counted by itself, that have metrics of their own."""
MAX_NAME = 64
"""Characters of a model's name in metrics."""


class WorkerPool:
    """The workers of one gateway: one for each client, and one for each address of each DNS name.

    Use it as `async with pool.monitored():`.
    """

    def __init__(
        self,
        sources: Sequence[httpx.AsyncClient | DnsName],
        health_checks: HealthCheckPolicy,
        breakers: BreakerPolicy,
        retry_policy: RetryPolicy,
        *,
        affinity: bool = True,
        split: Split = "auto",
    ) -> None:
        self._health_checks = health_checks
        self._breakers = breakers
        self._retry_policy = retry_policy
        self._affinity = affinity
        self._split = split

        self._members: list[PoolMember] = []
        self._names: list[DnsName] = []
        for source in sources:
            if isinstance(source, DnsName):
                self._names.append(source)
            else:
                self._members.append(self._member(source))
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_ready = asyncio.Event()
        self.last_served: tuple[WorkerInfo, ...] = ()
        """The models of the workers that were ready last, for a time when none is."""

        for state in STATES:
            follow(WORKERS.labels(state), partial(self._count, state))
        MODEL_WORKERS.set_function(self._count_models)

    @property
    def members(self) -> Sequence[PoolMember]:
        """The workers, in the order in which they were found."""
        return tuple(self._members)

    @asynccontextmanager
    async def monitored(self) -> AsyncIterator[None]:
        """Probe every worker and look up every name, again and again, while the context lasts."""
        for member in self._members:
            self._start(member.monitor())
        for name in self._names:
            self._start(self._follow(name))

        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def ready(self) -> bool:
        """True if some worker serves a model."""
        return any(member.models for member in self._members)

    async def until_ready(self) -> None:
        """Wait until some worker serves a model."""
        await self._has_ready.wait()

    def count_ready(self) -> int:
        """The number of workers that serve a model."""
        return sum(bool(member.models) for member in self._members)

    def sum_ready(self, count: Callable[[Sequence[WorkerInfo]], int]) -> int:
        """The sum of a count over the workers that serve a model, by the models of each."""
        return sum(count(member.models) for member in self._members if member.models)

    def names(self) -> list[str]:
        """The names of the served models, each once."""
        return sorted({model.model for model in self._served()})

    def model(self, name: str | None = None, digest: str | None = None) -> WorkerInfo:
        """The model of a name; None for the default model of the first ready worker.

        Where workers have the model in several digests, the given `digest` is preferred, then that
        of most workers; of several versions with that digest, which differ in their calibrations,
        that of most workers. A worker that is older than calibrations does not describe those of
        its version. Raises `NoWorker` and `ModelNotFound`.
        """
        served = self._served()
        if not served:
            raise NoWorker

        wanted_name = served[0].model if name is None else name
        named = [model for model in served if model.model == wanted_name]
        if not named:
            raise ModelNotFound

        chosen = prevalent([model.digest for model in named], digest)
        equal = [model for model in named if model.digest == chosen]
        version = prevalent([model.version for model in equal], None)
        same = [model for model in equal if model.version == version]
        return max(same, key=lambda model: len(model.calibrations))

    @contextmanager
    def dispatches(self, workload: Workload) -> Iterator[list[ShareDispatch]]:
        """The dispatches of a workload's shares, one or several; raises `NoWorker`."""
        workers, shares = self._shares(workload)
        REQUEST_WORKERS.observe(len(shares))

        dispatches = []
        for share in shares:
            part = workload.part(share.documents)
            dispatch = ShareDispatch(
                workers[share.worker],
                workload.model.model,
                share.documents,
                part.prefix + sum(part.suffixes),
                partial(self._pick_worker, part),
                self._retry_policy,
            )
            dispatches.append(dispatch)
        try:
            yield dispatches
        finally:
            for dispatch in dispatches:
                dispatch.close()

    def _shares(self, workload: Workload) -> tuple[list[PoolMember], list[Share]]:
        """Workers, and the shares of a workload for some of them; raises `NoWorker`."""
        homes = workload.homes if self._affinity and self._split != "never" else None
        workers = self._eligible(workload) if homes else self._in_order(workload)
        if not workers:
            raise NoWorker

        loads = [worker.load for worker in workers]
        if homes is None:
            return workers, even_shares(workload, loads, self._split, affinity=self._affinity)
        names = [worker.name for worker in workers]
        return workers, shares_at_homes(homes, workload.suffixes, names, loads, self._split)

    def _pick_worker(
        self, workload: Workload, tried: Collection[PoolMember], cost: int
    ) -> PoolMember | None:
        """The first worker in the workload's order that was not tried and may take the cost."""
        workers = self._in_order(workload, tried)
        if not workers:
            return None
        return workers[within_bound([worker.load for worker in workers], cost)]

    def _in_order(self, workload: Workload, tried: Collection[PoolMember] = ()) -> list[PoolMember]:
        """The eligible workers in the workload's order; the least loaded first where it has
        none."""
        workers = self._eligible(workload, tried)
        names = [worker.name for worker in workers]
        order = workload.order(names) if self._affinity and workers else None
        if order is None:
            return sorted(workers, key=lambda worker: (worker.load, random()))
        return [workers[index] for index in order]

    def _eligible(self, workload: Workload, tried: Collection[PoolMember] = ()) -> list[PoolMember]:
        """The workers that serve a workload's model and were not tried.

        A worker with an open breaker is eligible only where there is no other, and never for a
        second attempt: calls that fail everywhere are made once.
        """
        name = workload.model.model
        workers = [
            member
            for member in self._members
            if member not in tried and member.model(name) is not None
        ]
        if tried:
            workers = [worker for worker in workers if worker.admits()]

        return prefer(workers, admitting, partial(of_one_digest, workload.model), responsive)

    def _served(self) -> list[WorkerInfo]:
        """The models of all workers, in order."""
        served: list[WorkerInfo] = []
        for member in self._members:
            served += member.models
        return served

    async def _follow(self, name: DnsName) -> None:
        """Keep one worker for each address of a name; a worker whose address is gone finishes its
        calls."""
        members: dict[str, PoolMember] = {}
        urls: list[str] | None = None
        told = False
        while True:
            before = urls
            urls = await name.urls()
            if urls != before or not told:
                found = None if urls is None else len(urls)
                log("workers' name looked up", host=name.host, found=found)
                told = True
            if urls is not None:
                # a worker that answers is not gone, whatever a name server says
                answering = [url for url, member in members.items() if member.models]
                self._update(members, urls or answering, name)
            await asyncio.sleep(
                name.seconds if members else min(name.seconds, RETRY_LOOK_UP_SECONDS)
            )

    def _update(self, members: dict[str, PoolMember], urls: Sequence[str], name: DnsName) -> None:
        """Retire the members of a name whose URLs are gone, and begin those of new URLs."""
        for gone in members.keys() - set(urls):
            member = members.pop(gone)
            self._members.remove(member)
            member.retire()

        for url in urls:
            if url not in members:
                members[url] = self._member(name.connect(url))
                self._members.append(members[url])
                self._start(members[url].monitor())

    def _member(self, client: httpx.AsyncClient) -> PoolMember:
        return PoolMember(client, self._health_checks, self._breakers, self._note_served)

    def _note_served(self) -> None:
        served = tuple(self._served())
        self.last_served = served or self.last_served
        if served:
            self._has_ready.set()
        else:
            self._has_ready.clear()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        """Run a task that ends with the pool's context at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, state: State) -> int:
        return sum(member.state() == state for member in self._members)

    def _count_models(self) -> dict[tuple[str, ...], int]:
        """The number of workers of each model and digest, the most frequent first, at most
        `MOST_MODELS`."""
        counts = Counter(
            (model.model[:MAX_NAME], short_digest(model.digest)) for model in self._served()
        )
        return dict(counts.most_common(MOST_MODELS))
