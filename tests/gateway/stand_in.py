"""Small workers that answer as a test tells them to."""

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
from service.gateway.fleet.pool import WorkerPool, Workload
from service.gateway.fleet.routing import hash_order
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
    """A worker that serves `info` (None: it is not ready) and `others`, or says the bytes in
    `said`.

    It answers calls with `answer`, and keeps them.
    """

    _count = itertools.count()

    def __init__(self, answer: Answer, info: WorkerInfo = INFO, *others: WorkerInfo) -> None:
        self.info: WorkerInfo | None = info
        self.others = others
        self.said: bytes | None = None
        self.answer = answer
        self.calls: list[ScoreCall] = []
        self.headers: list[dict[str, str]] = []
        routes = [Route("/info", self._info), Route("/score", self._score, methods=["POST"])]
        self.app = Starlette(routes=routes)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url=f"http://worker-{next(self._count)}"
        )

    async def _info(self, request: Request) -> Response:
        said = self.said or (self.info and msgspec.json.encode([self.info, *self.others]))
        return Response(said) if said else Response(status_code=503)

    async def _score(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        self.calls.append(msgspec.msgpack.decode(await request.body(), type=ScoreCall))
        return await self.answer(self.calls[-1])


class Reader(StandIn):
    """Scores a text document by the number it spells, plus `more`; a picture is 0. "late" is left
    open, "long" is refused."""

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
        """Another model from the next call on."""
        self.info, self.digest, self.more = info, info.digest, more

    def seen(self) -> list[list[str | int]]:
        """The documents of each call since the last look."""
        calls, self.calls = self.calls, []
        return [[document[0] for document in call.documents] for call in calls]


@asynccontextmanager
async def monitored(*clients: httpx.AsyncClient, **settings: Any) -> AsyncIterator[WorkerPool]:
    """`Workers` over clients, all of which are ready."""
    workers = WorkerPool(clients, **settings)
    async with workers.monitored():
        async with asyncio.timeout(10):
            while not all(worker.serves for worker in workers._workers):
                await asyncio.sleep(0.001)
        yield workers


def key_for(*clients: httpx.AsyncClient) -> bytes:
    """A key whose first choice among the clients is the first of them."""
    names = [str(client.base_url) for client in clients]
    return next(
        key
        for key in map(str.encode, map(str, itertools.count()))
        if hash_order(key, names)[0] == 0
    )


async def ask(
    workers: WorkerPool, until: float | None = None, call: ScoreCall = CALL, key: bytes = b"k"
) -> ScoreReply:
    """One call to a seat of its own."""
    work = Workload(workers.model(call.model), key, 10, [10] * len(call.documents))
    with workers.dispatches(work) as (seat,):
        return await seat.score(call, sum(work.suffixes), soon() if until is None else until)


def soon(seconds: float = 30) -> float:
    """A deadline, in event loop time."""
    return asyncio.get_running_loop().time() + seconds
