"""Pictures travel to a worker once: later calls leave their pixels out, and the gateway decodes
nothing for them. The workers are real ones, with the torch engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs
from starlette.responses import Response

from model_store.checkpoint import Adapter, Checkpoint, resolve
from service.gateway.circuit_breaker import RetryBudget
from service.gateway.domain import PairOutcome, ScoringContext
from service.gateway.fleet.member import HealthCheckPolicy
from service.gateway.fleet.pool import WorkerPool
from service.gateway.media.content import Content, Text
from service.gateway.scoring import Scoring
from service.wire import MISSING_IMAGE, Refused, ScoreCall, Scored, WorkerInfo
from service.worker.engines.base import Begin, PairVerdict, no_callback
from service.worker.engines.torch.engine import TorchEngine
from service.worker.settings import WorkerSettings
from tests.conftest import TINY
from tests.gateway.encoded_pictures import encode, exif, picture
from tests.gateway.stand_in import (
    INFO,
    StandIn,
    monitored,
    reply,
    retry_policy,
    soon,
)
from tests.gateway.stand_in import scored as logit
from tests.gateway.test_scoring import Watching, sent_picture
from tests.worker.serving import ready_worker

STILL = HealthCheckPolicy(probe_seconds=3600)
"""Workers are probed as they start, and never again: what happens later is learnt from calls."""
QUERY: Content = (Text("two red circles"),)
OTHER: Content = (Text("a page about ships"),)
PICTURE_BYTES = 3 * 112 * 140
"""Of the pixels of a picture that is shown."""


class SharedEngine:
    """One engine for several workers, which its owner starts and closes."""

    def __init__(self, engine: TorchEngine, infos: list[WorkerInfo]) -> None:
        self._engine, self._infos = engine, infos

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        return self._infos

    def score(
        self, call: ScoreCall, begin: Begin = no_callback
    ) -> AsyncGenerator[PairVerdict, None]:
        for item in (call.query, *call.documents):
            assert all(call.images[part].rgb for part in item if isinstance(part, int))
        return self._engine.score(call, begin)

    def healthy(self) -> bool:
        return True

    def stalled_seconds(self) -> float:
        return 0.0

    def ended(self) -> bool:
        return False

    async def close(self) -> None:
        """Leave the engine to its owner."""


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[SharedEngine]:
    engine = TorchEngine(device="cpu", threads=1)
    yield SharedEngine(engine, await engine.start(resolve(str(TINY))))
    await engine.close()


class Line(httpx.AsyncBaseTransport):
    """The line to a worker, which another one may take the place of. It records calls; while it is
    broken they fail."""

    def __init__(self, worker: httpx.AsyncClient) -> None:
        self.worker = worker
        self.broken = False
        self.calls: list[ScoreCall] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        if request.url.path == "/score":
            if self.broken:
                return httpx.Response(500, stream=httpx.ByteStream(b""))
            self.calls.append(msgspec.msgpack.decode(body, type=ScoreCall))
        answer = await self.worker.request(
            request.method, request.url.path, content=body, headers=request.headers
        )
        return httpx.Response(answer.status_code, stream=httpx.ByteStream(answer.content))

    def pictures(self) -> list[tuple[int, int]]:
        """The numbers of pictures of each call since this was last called: with pixels, without."""
        calls, self.calls = self.calls, []
        counts = []
        for call in calls:
            sent = sum(bool(image.rgb) for image in call.images)
            counts.append((sent, len(call.images) - sent))
        return counts


@asynccontextmanager
async def worker(engine: SharedEngine, store_bytes: int = 2**20) -> AsyncIterator[Line]:
    settings = WorkerSettings(
        model=str(TINY), picture_store_bytes=store_bytes, golden_check_seconds=0
    )
    async with ready_worker(settings, engine) as client:
        yield Line(client)


class Gateway:
    """The scoring of a gateway over its workers."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool, self._media = pool, Watching()
        self._scoring = Scoring(self._media, pool)

    async def score(
        self, documents: Mapping[bytes, Content], query: Content = QUERY, salt: str = ""
    ) -> list[float | str]:
        """The logit of each document, or the code of its error."""
        context = ScoringContext(self.pool.model(), "find", query, truncate=True, cache_salt=salt)
        _, outcomes = await self._scoring.score(context, documents, soon(120))
        return [told(outcomes[key]) for key in documents]

    def decoded(self) -> int:
        """The number of pictures that were decoded since this was last called."""
        asked, self._media.asked = self._media.asked, []
        return sum(asked)


def told(outcome: PairOutcome) -> float | str:
    return round(outcome.logit, 4) if isinstance(outcome, Scored) else outcome.code


@asynccontextmanager
async def gateway(*lines: Line, **options: Any) -> AsyncIterator[Gateway]:
    clients = [
        httpx.AsyncClient(transport=line, base_url=f"http://w{number}")
        for number, line in enumerate(lines)
    ]
    async with monitored(*clients, **{"health_checks": STILL} | options) as pool:
        yield Gateway(pool)


def shown(*numbers: int, side: int = 60) -> dict[bytes, Content]:
    """A document of one picture for each number."""
    return {
        b"%d" % number: (
            sent_picture(encode(picture((side, side + number))), ("documents", number, "image")),
        )
        for number in numbers
    }


async def test_later_requests_neither_decode_nor_send_what_the_worker_keeps(
    engine: SharedEngine,
) -> None:
    documents = shown(*range(6)) | {b"text": (Text("a text"),)}
    async with worker(engine, 0) as forgetful, gateway(forgetful) as plain:
        wanted = await plain.score(documents), await plain.score(documents, OTHER)
        assert [plain.decoded(), *forgetful.pictures()] == [12, (6, 0), (6, 0)]

    async with worker(engine) as line, gateway(line) as hot:
        assert await hot.score(documents) == wanted[0]
        assert (hot.decoded(), line.pictures()) == (6, [(6, 0)])

        assert await hot.score(documents, OTHER) == wanted[1]
        assert (hot.decoded(), line.pictures()) == (0, [(0, 6)])

        more = documents | shown(7)
        assert (await hot.score(more, OTHER))[:-1] == wanted[1]
        assert (hot.decoded(), line.pictures()) == (1, [(1, 6)])
    assert len(set(wanted[0])) == 7


async def test_a_querys_picture_is_left_out_too(engine: SharedEngine) -> None:
    documents, (query,) = shown(1, 2), shown(9).values()
    async with worker(engine) as line, gateway(line) as hot:
        wanted = await hot.score(documents, query)
        assert await hot.score(documents, query) == wanted
        assert line.pictures() == [(3, 0), (0, 3)]


async def test_a_photo_that_is_turned_is_left_out_in_the_size_that_it_was_sent_in(
    engine: SharedEngine,
) -> None:
    data = encode(picture((90, 60)), "JPEG", exif=exif(6))
    documents: dict[bytes, Content] = {b"photo": (sent_picture(data, ("documents", 0, "image")),)}
    async with worker(engine) as line, gateway(line) as hot:
        wanted = await hot.score(documents)
        assert await hot.score(documents) == wanted
        (first,), (second,) = [call.images for call in line.calls]
    assert (second.width, second.height) == (first.width, first.height)
    assert first.width < first.height
    assert (len(first.rgb), len(second.rgb)) == (3 * first.width * first.height, 0)


async def test_what_the_worker_has_dropped_is_sent_once_more(engine: SharedEngine) -> None:
    """The store has room for four pictures; another gateway's take the place of two."""
    documents = shown(1, 2, 3) | {b"text": (Text("a text"),)}
    async with (
        worker(engine, 4 * PICTURE_BYTES) as line,
        gateway(line) as hot,
        gateway(line) as other,
    ):
        wanted = await hot.score(documents)
        await other.score(shown(4, 5, 6))
        line.pictures()

        assert await hot.score(documents) == wanted
        assert line.pictures() == [(0, 3), (2, 0)]
        assert await hot.score(documents) == wanted
        assert line.pictures() == [(0, 3)]


async def test_requests_at_once_over_a_store_that_is_too_small_are_scored_rightly(
    engine: SharedEngine,
) -> None:
    sets = [shown(*range(first, first + 4)) for first in range(6)]
    async with worker(engine, 0) as forgetful, gateway(forgetful) as plain:
        wanted = [await plain.score(documents) for documents in sets]

    async with (
        worker(engine, 5 * PICTURE_BYTES) as line,
        gateway(line) as one,
        gateway(line) as two,
    ):
        for _ in range(3):
            found = await asyncio.gather(
                *(one.score(documents) for documents in sets),
                *(two.score(documents) for documents in reversed(sets)),
            )
            assert found == [*wanted, *reversed(wanted)]
        assert sum(left_out for _, left_out in line.pictures()) > 0


@pytest.mark.parametrize("probed", [True, False])
async def test_a_worker_that_restarts_is_sent_all_pictures_again(
    engine: SharedEngine, probed: bool
) -> None:
    documents = shown(1, 2)
    async with worker(engine) as line, worker(engine) as restarted, gateway(line) as hot:
        wanted = await hot.score(documents)
        line.worker = restarted.worker
        if probed:
            await hot.pool.members[0].probe()
        line.pictures()

        assert await hot.score(documents) == wanted
        assert line.pictures() == ([(2, 0)] if probed else [(0, 2), (2, 0)])


async def test_tenants_share_no_picture(engine: SharedEngine) -> None:
    documents = shown(1, 2)
    async with worker(engine) as line, gateway(line) as hot:
        for _ in range(2):
            await hot.score(documents, salt="one")
            await hot.score(documents, salt="two")
        assert line.pictures() == [(2, 0), (2, 0), (0, 2), (0, 2)]

        # a worker does not take it from a gateway either
        (call,) = await hot.score(documents, salt="one") and line.calls
        stolen = structs.replace(call, cache_salt="three")
        answer = await line.worker.post("/score", content=msgspec.msgpack.encode(stolen))
        assert answer.content.count(MISSING_IMAGE.encode()) == 2


async def test_the_worker_of_a_retry_is_sent_what_it_lacks(engine: SharedEngine) -> None:
    documents = shown(*range(3))
    async with (
        worker(engine) as first,
        worker(engine) as second,
        gateway(first, second, split="never") as hot,
    ):
        wanted = await hot.score(documents)
        home, away = (first, second) if first.calls else (second, first)
        home.pictures()
        home.broken = True

        assert await hot.score(documents) == wanted
        assert (home.pictures(), away.pictures()) == ([], [(3, 0)])
        assert await hot.score(documents) == wanted
        assert away.pictures() == [(0, 3)]


async def test_a_picture_that_cannot_be_decoded_is_its_documents_error_alone(
    engine: SharedEngine,
) -> None:
    good, broken = shown(1, 2), encode(picture())[:70]
    documents = good | {b"bad": (sent_picture(broken, ("documents", 2, "image")),)}
    async with worker(engine) as line, gateway(line) as hot:
        wanted = await hot.score(good)
        for _ in range(2):
            assert await hot.score(documents) == [*wanted, "invalid_image"]
        assert line.pictures() == [(2, 0), (0, 2), (0, 2)]


async def test_a_worker_that_lacks_what_it_was_sent_has_failed() -> None:
    async def lacks(call: ScoreCall) -> Response:
        return reply([Refused(MISSING_IMAGE)] * len(call.documents))

    stand_in = StandIn(lacks, structs.replace(INFO, picture_store="s", picture_store_bytes=2**20))
    async with monitored(stand_in.client) as pool:
        assert await Gateway(pool).score(shown(1, 2)) == ["worker_failed"] * 2
    assert len(stand_in.calls) == 2


async def test_a_worker_that_names_no_store_is_sent_all_pixels() -> None:
    async def good(call: ScoreCall) -> Response:
        return reply([logit(1)] * len(call.documents))

    older = StandIn(good)
    async with monitored(older.client) as pool:
        for _ in range(2):
            await Gateway(pool).score(shown(1, 2))
    assert all(image.rgb for call in older.calls for image in call.images)


async def test_no_hedge_goes_to_a_worker_that_lacks_the_pictures() -> None:
    """It would refuse at once, and so be the first to reply."""
    slow = asyncio.Event()

    async def answer(call: ScoreCall) -> Response:
        if slow.is_set():
            await asyncio.sleep(0.2)
        return reply([logit(1)] * len(call.documents))

    keeps = structs.replace(INFO, picture_store="s", picture_store_bytes=2**20)
    stand_ins = [StandIn(answer, keeps), StandIn(answer, keeps)]
    hedges = retry_policy(0.02, hedges=RetryBudget(share=0, reserve=100))
    clients = [each.client for each in stand_ins]
    async with monitored(*clients, retries=hedges, split="never") as pool:
        hot = Gateway(pool)
        assert await hot.score(shown(1)) == [1]
        slow.set()
        assert await hot.score(shown(1)) == [1]
        assert sorted(len(each.calls) for each in stand_ins) == [0, 2]

        assert await hot.score(shown(2)) == [1]
        assert sorted(len(each.calls) for each in stand_ins) == [1, 3]
