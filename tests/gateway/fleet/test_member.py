"""The health of a worker: circuit breaker, probes, suspicion, recovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import msgspec
import pytest
from starlette.responses import Response

from service.errors import DeadlineExceeded, NoWorker, Overloaded, RerankError, WorkerFailed
from service.gateway.fleet.member import BreakerPolicy, HealthCheckPolicy
from service.wire import ScoreCall, ScoreReply
from tests.gateway.fleet.test_client import refuses, says
from tests.gateway.fleet.test_pool import wait_until
from tests.gateway.stand_in import (
    INFO,
    Answer,
    StandIn,
    ask,
    good,
    key_for,
    monitored,
    never,
    scored,
    soon,
)
from tests.metrics import metric_value

FAILS = says(500, b"")
SHORT = HealthCheckPolicy(probe_seconds=0.01, timeout_seconds=0.05, max_misses=3)
FAILURES = BreakerPolicy().failures


class Gate(httpx.ASGITransport):
    """The transport to a stand-in; while it is shut, nothing comes back."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(stand_in.app)
        self.open = asyncio.Event()
        self.open.set()
        self.probes = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.probes += request.url.path == "/info"
        await self.open.wait()
        return await super().handle_async_request(request)


def gated(stand_in: StandIn) -> tuple[Gate, httpx.AsyncClient]:
    gate = Gate(stand_in)
    return gate, httpx.AsyncClient(transport=gate, base_url=stand_in.client.base_url)


def state_count(state: str) -> float:
    return metric_value("rerank_workers", state=state)


async def test_a_worker_that_keeps_failing_is_not_asked_while_another_serves() -> None:
    bad, other = StandIn(FAILS), StandIn(good)
    async with monitored(bad.client, other.client) as workers:
        key = key_for(bad.client, other.client)
        for _ in range(10):
            assert (await ask(workers, key=key)).pairs == [scored(0), scored(1)]
        assert (len(bad.calls), len(other.calls)) == (FAILURES, 10)
        assert (state_count("circuit_open"), state_count("ready")) == (1, 1)


async def test_one_call_at_a_time_tries_it_again_and_brings_it_back() -> None:
    bad, other = StandIn(FAILS), StandIn(good)
    soon_half_open = BreakerPolicy(open_seconds=0.02)
    async with monitored(bad.client, other.client, breakers=soon_half_open) as workers:
        key = key_for(bad.client, other.client)
        worker = workers.members[0]
        for _ in range(FAILURES):
            await ask(workers, key=key)
        assert worker.state() == "circuit_open"
        await wait_until(worker.admits)
        release = asyncio.Event()

        async def held(call: ScoreCall) -> Response:
            await release.wait()
            return await good(call)

        bad.answer = held
        asked = [asyncio.create_task(ask(workers, key=key)) for _ in range(5)]
        await wait_until(
            lambda: len(bad.calls) == FAILURES + 1 and sum(each.done() for each in asked) == 4
        )
        release.set()
        await asyncio.gather(*asked)
        assert worker.state() == "ready"
        before = len(bad.calls)
        await ask(workers, key=key)

        assert len(bad.calls) == before + 1


async def test_where_all_breakers_are_open_calls_are_made_once_and_success_closes_them() -> None:
    stand_ins = [StandIn(FAILS), StandIn(FAILS)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        while any(worker.admits() for worker in workers.members):
            with pytest.raises(WorkerFailed):
                await ask(workers)
        before = sum(len(each.calls) for each in stand_ins)
        for _ in range(20):
            with pytest.raises(WorkerFailed):
                await ask(workers)
        assert sum(len(each.calls) for each in stand_ins) == before + 20
        for each in stand_ins:
            each.answer = good

        assert (await ask(workers)).digest == INFO.digest
        assert any(worker.admits() for worker in workers.members)


async def test_a_worker_that_was_away_starts_anew() -> None:
    bad, other = StandIn(FAILS), StandIn(good)
    async with monitored(bad.client, other.client, health_checks=SHORT) as workers:
        key = key_for(bad.client, other.client)
        for _ in range(FAILURES):
            await ask(workers, key=key)
        assert workers.members[0].state() == "circuit_open"
        bad.info = None
        await wait_until(lambda: workers.members[0].state() == "unready")
        bad.info, bad.answer = INFO, good
        await wait_until(lambda: workers.members[0].state() == "ready")
        await ask(workers, key=key)

        assert len(bad.calls) == FAILURES + 1


async def test_a_worker_that_breaks_off_every_call_is_left_out_though_it_says_it_is_ready() -> None:
    other = StandIn(good)
    async with speaking(*[b""] * 20) as client, monitored(client, other.client) as workers:
        for _ in range(10):
            await wait_until(lambda: workers.members[0].models)
            assert (await ask(workers, key=key_for(client, other.client))).digest == INFO.digest
        assert workers.members[0].state() == "circuit_open"
    assert len(other.calls) == 10


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuses(Overloaded), Overloaded),
        (says(400, b""), WorkerFailed),
        (refuses(DeadlineExceeded), DeadlineExceeded),
    ],
    ids=["no room", "a call that is wrong", "no time"],
)
async def test_what_says_nothing_of_a_workers_health_opens_no_breaker(
    answer: Answer, error: type[RerankError]
) -> None:
    only = StandIn(answer)
    async with monitored(only.client) as workers:
        for _ in range(2 * FAILURES):
            with pytest.raises(error):
                await ask(workers, soon(1))
        assert workers.members[0].state() == "ready"


@pytest.mark.parametrize(("seconds", "state"), [(0.3, "ready"), (0.6, "circuit_open")])
async def test_time_that_runs_out_counts_only_if_there_was_enough(
    seconds: float, state: str
) -> None:
    """Otherwise a client with a very short timeout would exclude a worker for all others."""
    only = StandIn(never)
    async with monitored(only.client, breakers=BreakerPolicy(blame_seconds=0.5)) as workers:
        asked = [asyncio.create_task(ask(workers, soon(seconds))) for _ in range(FAILURES)]
        assert {type(each) for each in await asyncio.gather(*asked, return_exceptions=True)} == {
            DeadlineExceeded
        }
        assert workers.members[0].state() == state


async def test_calls_that_are_cancelled_open_no_breaker() -> None:
    only = StandIn(never)
    async with monitored(only.client) as workers:
        asked = [asyncio.create_task(ask(workers)) for _ in range(2 * FAILURES)]
        await wait_until(lambda: len(only.calls) == len(asked))
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

        assert workers.members[0].state() == "ready"


async def test_a_worker_that_says_no_more_is_given_up_and_its_calls_are_made_elsewhere() -> None:
    hung, other = StandIn(good), StandIn(good)
    gate, client = gated(hung)
    async with monitored(client, other.client, health_checks=SHORT) as workers:
        gate.open.clear()
        replies = await asyncio.gather(
            *(ask(workers, soon(60), key=key_for(client, other.client)) for _ in range(5))
        )
        assert {reply.digest for reply in replies} == {INFO.digest}
        assert (len(hung.calls), len(other.calls)) == (0, 5)
        assert workers.members[0].state() == "unready"
        assert [worker.load for worker in workers.members] == [0, 0]
        gate.open.set()
        await wait_until(lambda: workers.members[0].state() == "ready")
        await ask(workers, key=key_for(client, other.client))

        assert len(other.calls) == 5


async def test_what_waits_for_the_only_worker_ends_when_that_hangs() -> None:
    gate, client = gated(StandIn(good))
    async with monitored(client, health_checks=SHORT) as workers:
        gate.open.clear()
        for _ in range(2):
            with pytest.raises(NoWorker):
                await ask(workers, soon(60))


class Mortal(Gate):
    """While it is shut, calls break off and probes cannot connect."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.open.is_set():
            return await super().handle_async_request(request)
        raise httpx.ReadError("") if request.url.path == "/score" else httpx.ConnectError("")


async def test_where_one_worker_dies_and_the_other_hangs_nobody_is_ready_and_none_has_failed() -> (
    None
):
    """The request may be retried later, whichever of the two it was sent to."""
    mortal, stuck = Mortal(StandIn(good)), Gate(StandIn(good))
    clients = [
        httpx.AsyncClient(transport=gate, base_url=f"http://{name}")
        for gate, name in ((mortal, "a"), (stuck, "b"))
    ]
    async with monitored(*clients, health_checks=SHORT) as workers:
        for gate in (mortal, stuck):
            gate.open.clear()
        asked = [ask(workers, soon(60), key=b"%d" % number) for number in range(10)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(each) for each in outcomes] == [NoWorker] * 10


async def test_the_only_worker_that_dies_during_a_call_is_no_worker() -> None:
    mortal = Mortal(StandIn(good))
    client = httpx.AsyncClient(transport=mortal, base_url="http://only")
    async with monitored(client, health_checks=HealthCheckPolicy(probe_seconds=60)) as workers:
        mortal.open.clear()
        with pytest.raises(NoWorker):
            await ask(workers)


async def test_a_worker_that_misses_a_probe_is_only_passed_over() -> None:
    """The worker may be busy: it keeps its calls, and gets new ones where there is no other."""
    stand_ins = [StandIn(good), StandIn(good)]
    gates, clients = zip(*map(gated, stand_ins), strict=True)
    key = key_for(*clients)

    async with monitored(
        *clients,
        health_checks=HealthCheckPolicy(probe_seconds=0.01, timeout_seconds=0.05, max_misses=1_000),
    ) as workers:
        gates[0].open.clear()
        asked = asyncio.create_task(ask(workers, soon(60), key=key))
        await wait_until(lambda: workers.members[0].state() == "unresponsive")
        before = gates[0].probes
        await wait_until(lambda: gates[0].probes > before + 3)
        assert not asked.done()
        await ask(workers, key=key)
        assert [len(each.calls) for each in stand_ins] == [0, 1]
        stand_ins[1].info = None
        await wait_until(lambda: workers.members[1].state() == "unready")
        also = asyncio.create_task(ask(workers, soon(60), key=key))
        gates[0].open.set()

        assert [(await each).digest for each in (asked, also)] == [INFO.digest] * 2
        assert [len(each.calls) for each in stand_ins] == [2, 1]


async def test_a_worker_that_is_not_ready_keeps_the_calls_it_has() -> None:
    release = asyncio.Event()

    async def held(call: ScoreCall) -> Response:
        await release.wait()
        return await good(call)

    only = StandIn(held)

    async with monitored(only.client, health_checks=SHORT) as workers:
        asked = asyncio.create_task(ask(workers, soon(60)))
        await wait_until(lambda: only.calls)
        only.info = None
        await wait_until(lambda: not workers.ready())
        release.set()

        assert (await asked).digest == INFO.digest


async def test_a_worker_that_says_it_serves_no_more_is_given_nothing_until_it_says_otherwise() -> (
    None
):
    leaving, other = StandIn(refuses(NoWorker)), StandIn(good)
    async with monitored(
        leaving.client, other.client, health_checks=HealthCheckPolicy(probe_seconds=60)
    ) as workers:
        leaving.info = None
        for _ in range(5):
            await ask(workers, key=key_for(leaving.client, other.client))
        assert (len(leaving.calls), len(other.calls)) == (1, 5)


class Faulty(httpx.ASGITransport):
    """The transport to a stand-in; while it is `broken`, it raises what no client expects."""

    broken = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.broken:
            raise ZeroDivisionError
        return await super().handle_async_request(request)


async def test_the_monitor_goes_on_whatever_happens() -> None:
    transport = Faulty(StandIn(good).app)
    client = httpx.AsyncClient(transport=transport, base_url="http://only")
    async with monitored(client, health_checks=HealthCheckPolicy(probe_seconds=0.005)) as workers:
        transport.broken = True
        await wait_until(lambda: not workers.ready())
        transport.broken = False
        await wait_until(workers.ready)


@asynccontextmanager
async def speaking(*replies: bytes) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server that is ready, and answers each call with some bytes before it
    hangs up."""
    left = list(replies)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /info"):
            body = msgspec.json.encode([INFO])
            writer.write(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
                % (len(body), body)
            )
        else:
            writer.write(left.pop(0))
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)


OK = b"HTTP/1.1 200 OK\r\n"
BROKEN = {
    "a reset": b"",
    "no HTTP": b"garbage\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "less than announced": OK + b"content-length: 1000\r\n\r\nhalf",
    "a chunk that is cut off": OK + b"transfer-encoding: chunked\r\n\r\nff\r\nhalf",
    "more headers than fit": OK + b"a: b\r\n" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_reply_that_breaks_off_is_a_failed_worker_that_soon_is_ready_again(
    broken: str,
) -> None:
    body = msgspec.msgpack.encode(ScoreReply(INFO.digest, [scored(0), scored(1)], {}))
    whole = OK + b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    async with (
        speaking(BROKEN[broken], whole) as client,
        monitored(client, health_checks=HealthCheckPolicy(probe_seconds=60)) as workers,
    ):
        with pytest.raises(WorkerFailed):
            await ask(workers)
        await wait_until(workers.ready)
        assert (await ask(workers)).pairs == [scored(0), scored(1)]
