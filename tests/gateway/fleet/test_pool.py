"""The pool: the worker of a call, its time limit, and the models that workers serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs
from starlette.responses import Response

from service.errors import DeadlineExceeded, ModelNotFound, NoWorker, WorkerFailed
from service.gateway.fleet.member import HealthCheckPolicy
from service.gateway.fleet.pool import WorkerPool
from service.gateway.fleet.routing import hash_order
from service.gateway.fleet.workload import Workload
from service.observability.request_context import request_id
from service.wire import ScoreCall, ScoreReply
from tests.gateway.stand_in import (
    CALL,
    INFO,
    SameCall,
    StandIn,
    ask,
    good,
    key_for,
    monitored,
    never,
    pool_of,
    reply,
    scored,
    soon,
)


@asynccontextmanager
async def hanging_up(
    on_score: asyncio.Event,
) -> AsyncIterator[tuple[asyncio.Server, httpx.AsyncClient]]:
    """A real server that answers `/info`, and closes the connection on any other request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /info"):
            body = msgspec.json.encode([INFO])
            writer.write(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            await writer.drain()
        else:
            on_score.set()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)


async def test_a_worker_that_hangs_up_has_failed_and_another_is_asked() -> None:
    called, other = asyncio.Event(), StandIn(good)
    async with hanging_up(called) as (_, client), monitored(client, other.client) as workers:
        assert (await ask(workers, key=key_for(client, other.client))).digest == INFO.digest
    assert called.is_set()
    assert len(other.calls) == 1


async def test_a_worker_that_cannot_be_reached_is_not_ready() -> None:
    async with hanging_up(asyncio.Event()) as (server, client), monitored(client) as workers:
        server.close()
        await server.wait_closed()
        with pytest.raises((WorkerFailed, NoWorker)):
            await ask(workers)
        assert not workers.ready()
        with pytest.raises(NoWorker):
            await ask(workers)


async def test_a_worker_is_not_ready_until_it_says_what_it_serves() -> None:
    late = StandIn(good)
    late.info = None
    workers = pool_of(late.client)

    async with workers.monitored():
        await asyncio.sleep(0.01)
        assert not workers.ready()
        assert workers.names() == []
        for name in (None, "m"):
            with pytest.raises(NoWorker):
                workers.model(name)
        with pytest.raises(NoWorker):
            await ask(workers)
        late.info = INFO
        await wait_until(workers.ready)

        assert workers.model() == workers.model("m") == INFO
        assert (await ask(workers)).pairs == [scored(0), scored(1)]


async def wait_until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


ONE = msgspec.json.encode(INFO)
MANY = b"[%s]" % b",".join([ONE] * 1025)
NONSENSE = [
    b"garbage",
    b"{}",
    b'[{"model": "m"}]',
    b"[]",
    b"null",
    ONE,
    MANY,
    b'[{"model": "\xff"}]',
    b'{"a":' + b"[" * 100_000,
]


@pytest.mark.parametrize("said", NONSENSE, ids=range(len(NONSENSE)))
async def test_a_worker_that_says_nonsense_of_itself_is_not_ready_until_it_talks_sense(
    said: bytes,
) -> None:
    only = StandIn(good)
    only.info_body = said
    workers = pool_of(only.client)

    async with workers.monitored():
        await asyncio.sleep(0.01)
        assert not workers.ready()
        only.info_body = msgspec.json.encode([INFO])
        await wait_until(workers.ready)


async def test_a_model_that_is_not_served_is_said_so() -> None:
    stand_ins = [StandIn(good), StandIn(good, structs.replace(INFO, model="n")), StandIn(good)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        assert workers.names() == ["m", "n"]
        assert workers.model("n").model == "n"
        with pytest.raises(ModelNotFound):
            workers.model("other")
        await ask(workers, call=structs.replace(CALL, model="n"))
    assert [len(each.calls) for each in stand_ins] == [0, 1, 0]


ADAPTER = structs.replace(INFO, model="n", digest="sha256:n")
TWO = structs.replace(INFO, digest="sha256:two")


async def test_a_worker_may_serve_several_models_its_default_first() -> None:
    both, other = StandIn(good, ADAPTER, INFO), StandIn(good)
    async with monitored(both.client, other.client) as workers:
        assert workers.names() == ["m", "n"]
        assert workers.model() == workers.model("n") == ADAPTER
        assert workers.model("m") == INFO
        assert (
            await ask(
                workers,
                call=structs.replace(CALL, model="n"),
                key=key_for(other.client, both.client),
            )
        ).pairs
        assert (len(both.calls), len(other.calls)) == (1, 0)
        assert workers.model("n") == ADAPTER, "a reply of one model says nothing of another"


async def test_of_two_digests_the_one_of_most_workers_is_served_or_the_one_that_is_wanted() -> None:
    stand_ins = [StandIn(good, each) for each in (INFO, TWO, TWO)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        assert workers.model() == workers.model("m", "sha256:gone") == TWO
        assert workers.model("m", INFO.digest) == INFO
        stand_ins[2].info = INFO
        await workers.members[2].probe()

        assert workers.model() == INFO


async def test_calls_go_to_workers_of_the_wanted_digest_while_there_are_any() -> None:
    stand_ins = [StandIn(good, each) for each in (INFO, TWO, TWO)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        for number in range(20):
            with workers.dispatches(Workload(INFO, b"%d" % number, 10, [10, 10])) as (dispatch,):
                await dispatch.score(SameCall(), 20, soon())
        assert [len(each.calls) for each in stand_ins] == [20, 0, 0]
        stand_ins[0].info = TWO
        await workers.members[0].probe()
        with workers.dispatches(Workload(INFO, b"k", 10, [10, 10])) as (dispatch,):
            await dispatch.score(SameCall(), 20, soon())

        assert sum(len(each.calls) for each in stand_ins) == 21


async def fails(call: ScoreCall) -> Response:
    return Response(status_code=500)


async def test_where_all_of_the_wanted_digest_fail_another_digest_is_better_than_none() -> None:
    failing, newer = StandIn(fails), StandIn(good, TWO)
    async with monitored(failing.client, newer.client) as workers:
        with workers.dispatches(Workload(INFO, b"k", 10, [10, 10])) as (dispatch,):
            await dispatch.score(SameCall(), 20, soon())
    assert [len(each.calls) for each in (failing, newer)] == [1, 1]


@pytest.mark.parametrize("number", range(6))
async def test_what_failed_goes_to_the_next_in_the_keys_order_and_the_share_stays_there(
    number: int,
) -> None:
    stand_ins, key = [StandIn(good) for _ in range(4)], b"%d" % number
    names = [str(stand_in.client.base_url) for stand_in in stand_ins]
    order = [stand_ins[index] for index in hash_order(key, names)]
    order[0].answer = fails

    async with monitored(*(each.client for each in stand_ins)) as workers:
        with workers.dispatches(Workload(INFO, key, 10, [10, 10])) as (dispatch,):
            for _ in range(3):
                await dispatch.score(SameCall(), 5, soon())
            assert sorted(worker.load for worker in workers.members) == [0, 0, 0, 15]
        assert [worker.load for worker in workers.members] == [0, 0, 0, 0]

    assert [len(each.calls) for each in order] == [1, 3, 0, 0]


async def test_a_share_whose_worker_is_gone_before_its_call_moves_at_once() -> None:
    stand_ins = [StandIn(good), StandIn(good)]
    clients = [each.client for each in stand_ins]
    async with monitored(*clients) as workers:
        with workers.dispatches(Workload(INFO, key_for(*clients), 10, [10, 10])) as (dispatch,):
            stand_ins[0].info = None
            await workers.members[0].probe()
            await dispatch.score(SameCall(), 20, soon())

    assert [len(each.calls) for each in stand_ins] == [0, 1]


async def test_a_slow_worker_is_given_up_at_the_deadline() -> None:
    cancelled = asyncio.Event()

    async def slow(call: ScoreCall) -> Response:
        try:
            return await never(call)
        finally:
            cancelled.set()

    stand_ins = [StandIn(slow), StandIn(slow)]

    async with monitored(*(each.client for each in stand_ins)) as workers:
        with pytest.raises(DeadlineExceeded):
            await ask(workers, soon(0.05))
        assert workers.ready()

    assert cancelled.is_set()
    assert sum(len(each.calls) for each in stand_ins) == 1


async def test_a_deadline_that_has_passed_costs_no_call() -> None:
    only = StandIn(good)
    async with monitored(only.client) as workers:
        with pytest.raises(DeadlineExceeded):
            await ask(workers, soon(-1))
    assert only.calls == []


@pytest.mark.parametrize("seconds", [0.5, 1, 20])
async def test_a_worker_gets_less_time_than_is_left_and_the_request_id(seconds: float) -> None:
    only = StandIn(good)
    token = request_id.set("rr-known")
    async with monitored(only.client) as workers:
        await ask(workers, soon(seconds))
    request_id.reset(token)
    (headers,) = only.headers

    assert headers["x-request-id"] == "rr-known"
    assert seconds * 1000 / 2 < int(headers["x-rerank-timeout-ms"]) < seconds * 1000


async def test_the_least_busy_worker_is_chosen() -> None:
    release = asyncio.Event()

    async def held(call: ScoreCall) -> Response:
        await release.wait()
        return await good(call)

    stand_ins = [StandIn(held) for _ in range(3)]
    tasks: list[asyncio.Task[ScoreReply]] = []

    async def send(workers: WorkerPool) -> None:
        tasks.append(asyncio.create_task(ask(workers)))
        await wait_until(lambda: sum(len(each.calls) for each in stand_ins) == len(tasks))

    async with monitored(*(each.client for each in stand_ins)) as workers:
        for _ in range(7):
            await send(workers)
        assert sorted(len(each.calls) for each in stand_ins) == [2, 2, 3]
        busiest = max(range(3), key=lambda index: len(stand_ins[index].calls))
        before = len(stand_ins[busiest].calls)
        for _ in range(2):
            await send(workers)
        assert len(stand_ins[busiest].calls) == before
        release.set()
        await asyncio.gather(*tasks)


async def test_without_a_prefix_of_its_own_a_workload_goes_to_the_least_busy_worker() -> None:
    """Documents of a request share nothing where a prompt does not begin with the query."""
    async with monitored(*(StandIn(good).client for _ in range(3))) as workers:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(workers.dispatches(Workload(INFO, None, 0, [10])))

            assert [worker.load for worker in workers.members] == [10, 10, 10]


async def test_calls_that_were_cancelled_do_not_make_a_worker_look_busy() -> None:
    stand_ins = [StandIn(never), StandIn(never)]
    async with monitored(*(each.client for each in stand_ins)) as workers:
        for _ in range(3):
            task = asyncio.create_task(
                ask(workers, key=key_for(*(each.client for each in stand_ins)))
            )
            sent = sum(len(each.calls) for each in stand_ins)
            await wait_until(lambda sent=sent: sum(len(each.calls) for each in stand_ins) > sent)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert [len(each.calls) for each in stand_ins] == [3, 0]


async def test_a_reply_with_another_digest_is_noticed_at_once() -> None:
    newer = structs.replace(INFO, digest="sha256:two")

    async def answer(call: ScoreCall) -> Response:
        return reply([scored(0), scored(1)], newer.digest)

    only = StandIn(answer)

    async with monitored(only.client) as workers:
        only.info = newer
        assert (await ask(workers)).digest == newer.digest
        assert workers.model() == newer


async def test_a_new_model_is_noticed_without_a_call() -> None:
    only = StandIn(good)
    async with monitored(
        only.client, health_checks=HealthCheckPolicy(probe_seconds=0.005)
    ) as workers:
        only.info = structs.replace(INFO, model="n", digest="sha256:two")
        await wait_until(lambda: workers.names() == ["n"])
        only.info = None
        await wait_until(lambda: not workers.ready())


async def test_the_clients_are_closed_at_the_end() -> None:
    stand_ins = [StandIn(good), StandIn(good)]
    async with monitored(*(each.client for each in stand_ins)):
        pass
    assert all(each.client.is_closed for each in stand_ins)
