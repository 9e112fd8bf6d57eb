"""Stand-ins for workers, whose answers a test determines."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import PairTooLong
from service.gateway.cache.score_cache import MemoryTier, ScoreCache
from service.gateway.circuit_breaker import RetryBudget
from service.gateway.fleet.discovery import DnsName
from service.gateway.fleet.dispatch import (
    HEDGE_RESERVE,
    HEDGE_SHARE,
    RETRY_RESERVE,
    RETRY_SHARE,
    RetryPolicy,
)
from service.gateway.fleet.member import BreakerPolicy, HealthCheckPolicy, PoolMember
from service.gateway.fleet.pool import WorkerPool
from service.gateway.fleet.routing import hash_order
from service.gateway.fleet.workload import Workload
from service.gateway.media.decoders import Decoders
from service.gateway.media.reader import Media
from service.gateway.rerank import Reranker
from service.gateway.scoring import Scoring
from service.gateway.single_flight import SingleFlight
from service.limits import Limits
from service.wire import ImageRule, Refused, ScoreCall, Scored, ScoreReply, WorkerInfo

INFO = WorkerInfo(
    model="m",
    digest="sha256:one",
    family="gmr",
    template="code",
    default_instruction="find",
    max_pair_tokens=3200,
    images=ImageRule(28, 3136, 1_003_520),
    engine="stand-in",
    dtype="float32",
    device="cpu",
)

Pair = Scored | Refused | None
Answer = Callable[[ScoreCall], Coroutine[Any, Any, Response]]


def reply(pairs: Sequence[Pair], digest: str = INFO.digest) -> Response:
    return Response(msgspec.msgpack.encode(ScoreReply(digest, list(pairs), {"engine": 0.001})))


def scored(logit: float) -> Scored:
    return Scored(logit, 10, 0, truncated=False)


CALL = ScoreCall("m", "find", ["q"], [["a"], ["b"]], [], truncate=True)


async def good(call: ScoreCall) -> Response:
    return reply([scored(number) for number in range(len(call.documents))])


async def never(call: ScoreCall) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


class StandIn:
    """A worker that serves `info` (None: it is not ready) and `others`; `info_body` replaces the
    body of its `/info`. It answers calls with `answer`, and records them."""

    _count = itertools.count()

    def __init__(self, answer: Answer, info: WorkerInfo = INFO, *others: WorkerInfo) -> None:
        self.info: WorkerInfo | None = info
        self.others = others
        self.info_body: bytes | None = None
        self.answer = answer
        self.calls: list[ScoreCall] = []
        self.headers: list[dict[str, str]] = []
        routes = [Route("/info", self._info), Route("/score", self._score, methods=["POST"])]
        self.app = Starlette(routes=routes)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url=f"http://worker-{next(self._count)}"
        )

    async def _info(self, request: Request) -> Response:
        body = self.info_body or (self.info and msgspec.json.encode([self.info, *self.others]))
        return Response(body) if body else Response(status_code=503)

    async def _score(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        self.calls.append(msgspec.msgpack.decode(await request.body(), type=ScoreCall))
        return await self.answer(self.calls[-1])


def first_parts(call: ScoreCall) -> list[str | int]:
    """The first part of each document of a call."""
    return [document[0] for document in call.documents]


class Reader(StandIn):
    """Scores a text document by the number in it, plus `more`; a picture is 0. "late" gets no score
    in time, "long" is refused."""

    def __init__(self) -> None:
        super().__init__(self._read)
        self.digest = INFO.digest
        self.more = 0.0

    async def _read(self, call: ScoreCall) -> Response:
        return reply([self._pair(*document) for document in call.documents], self.digest)

    def _pair(self, part: str | int) -> Pair:
        if part == "late":
            return None
        if part == "long":
            return Refused(PairTooLong.code)
        return scored(self.more + (float(part) if isinstance(part, str) else 0))

    def becomes(self, info: WorkerInfo, more: float) -> None:
        """Serve another model from the next call on."""
        self.info, self.digest, self.more = info, info.digest, more

    def seen(self) -> list[list[str | int]]:
        """The documents of each call since this was last called."""
        calls, self.calls = self.calls, []
        return [first_parts(call) for call in calls]


def retry_policy(
    hedge_seconds: float = 0.0,
    *,
    retries: RetryBudget | None = None,
    hedges: RetryBudget | None = None,
) -> RetryPolicy:
    """The gateway's retry policy, with a test's own parts."""
    return RetryPolicy(
        retries or RetryBudget(share=RETRY_SHARE, reserve=RETRY_RESERVE),
        hedges or RetryBudget(share=HEDGE_SHARE, reserve=HEDGE_RESERVE),
        hedge_seconds,
    )


def pool_of(
    *sources: httpx.AsyncClient | DnsName,
    health_checks: HealthCheckPolicy | None = None,
    breakers: BreakerPolicy | None = None,
    retries: RetryPolicy | None = None,
    **settings: Any,
) -> WorkerPool:
    """A pool of workers with the gateway's policies, or a test's own."""
    return WorkerPool(
        sources,
        health_checks or HealthCheckPolicy(),
        breakers or BreakerPolicy(),
        retries or retry_policy(),
        **settings,
    )


@asynccontextmanager
async def monitored(*clients: httpx.AsyncClient, **options: Any) -> AsyncIterator[WorkerPool]:
    """A monitored `pool_of` clients, whose workers are all ready."""
    pool = pool_of(*clients, **options)
    async with pool.monitored():
        async with asyncio.timeout(10):
            while not all(member.models for member in pool.members):
                await asyncio.sleep(0.001)
        yield pool


def key_for(*clients: httpx.AsyncClient) -> bytes:
    """A key whose first choice among the clients is the first of them."""
    names = [str(client.base_url) for client in clients]
    return next(
        key
        for key in map(str.encode, map(str, itertools.count()))
        if hash_order(key, names)[0] == 0
    )


def reranker(
    pool: WorkerPool, media: Media | None = None, *, single_flight: SingleFlight | None = None
) -> Reranker:
    """A reranker over a pool, with a cache in memory."""
    reader = media or Media(Limits(), Decoders())
    return Reranker(
        pool,
        reader,
        ScoreCache([MemoryTier(2**20)]),
        Scoring(reader, pool),
        single_flight or SingleFlight(),
        secret=b"s",
    )


class SameCall:
    """A call that is the same for every worker."""

    def __init__(self, call: ScoreCall = CALL) -> None:
        self._call = call

    async def to(self, worker: PoolMember) -> ScoreCall:
        return self._call

    def suits(self, worker: PoolMember) -> bool:
        return True


async def ask(
    workers: WorkerPool, until: float | None = None, call: ScoreCall = CALL, key: bytes = b"k"
) -> ScoreReply:
    """One call by a dispatch of its own."""
    work = Workload(workers.model(call.model), key, 10, [10] * len(call.documents))
    with workers.dispatches(work) as (dispatch,):
        until = soon() if until is None else until
        answer = await dispatch.score(SameCall(call), sum(work.suffixes), until)
        assert answer is not None
        return answer


def soon(seconds: float = 30) -> float:
    """A deadline, in event loop time."""
    return asyncio.get_running_loop().time() + seconds
