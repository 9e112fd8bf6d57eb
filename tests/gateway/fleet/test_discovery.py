"""Workers behind a DNS name: they are added, they are removed once their calls have ended, and a
failed lookup changes nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
import uvicorn
from pydantic import ValidationError
from starlette.responses import Response

from service.errors import NoWorker
from service.gateway.fleet.connections import connect
from service.gateway.fleet.discovery import MAX_ADDRESSES, DnsName, dns_name, look_up
from service.gateway.fleet.pool import WorkerPool
from service.gateway.settings import GatewaySettings
from service.wire import ScoreCall
from tests.conftest import free_port
from tests.gateway.fleet.test_pool import wait_until
from tests.gateway.stand_in import INFO, StandIn, ask, good, pool_of

HOSTS = ("127.0.0.1", "127.0.0.2")


class NameServer:
    """Answers with `addresses`; none: there is none; None: the lookup fails."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] | None = list(addresses)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if self.addresses is None:
            raise socket.gaierror(socket.EAI_AGAIN, "silence")
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no pod of the Service is ready")
        return self.addresses


class Clients:
    """Makes clients, and records them."""

    def __init__(self) -> None:
        self.made: dict[str, httpx.AsyncClient] = {}

    def __call__(self, url: str) -> httpx.AsyncClient:
        self.made[url] = httpx.AsyncClient(base_url=url, trust_env=False)
        return self.made[url]


class Server(uvicorn.Server):
    """A server that leaves the signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(stand_in: StandIn, host: str, port: int) -> AsyncIterator[None]:
    """A stand-in on a real port."""
    config = uvicorn.Config(stand_in.app, host=host, port=port, log_config=None, lifespan="off")
    server = Server(config)
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def two() -> AsyncIterator[tuple[list[StandIn], int]]:
    """Two workers on one port, each at an address of its own."""
    stand_ins, port = [StandIn(good), StandIn(good)], free_port()
    async with served(stand_ins[0], HOSTS[0], port), served(stand_ins[1], HOSTS[1], port):
        yield stand_ins, port


def named(names: NameServer, port: int, connect: Clients | None = None) -> DnsName:
    return DnsName("workers", port, connect or Clients(), names, seconds=0.01)


def who(workers: WorkerPool) -> list[str]:
    return [worker.name for worker in workers.members if worker.models]


async def test_every_address_is_a_worker_and_they_come_and_go() -> None:
    names, clients = NameServer(HOSTS[0]), Clients()
    async with two() as (stand_ins, port):
        workers = pool_of(named(names, port, clients))
        first, second = (f"http://{host}:{port}" for host in HOSTS)
        async with workers.monitored():
            await wait_until(lambda: who(workers) == [first])
            names.addresses = [*HOSTS, *HOSTS]
            await wait_until(lambda: who(workers) == [first, second])
            for number in range(20):
                await ask(workers, key=b"%d" % number)
            assert all(each.calls for each in stand_ins)
            names.addresses = [HOSTS[1]]
            await wait_until(lambda: who(workers) == [second])
            before = len(stand_ins[0].calls)
            for number in range(20):
                await ask(workers, key=b"%d" % number)
            assert len(stand_ins[0].calls) == before
            await wait_until(lambda: clients.made[first].is_closed)
            names.addresses = list(HOSTS)
            await wait_until(lambda: who(workers) == [second, first])

        assert all(client.is_closed for client in clients.made.values())


async def test_a_worker_that_left_finishes_what_it_has() -> None:
    release = asyncio.Event()

    async def held(call: ScoreCall) -> Response:
        await release.wait()
        return await good(call)

    names, clients = NameServer(HOSTS[0]), Clients()

    async with two() as (stand_ins, port):
        stand_ins[0].answer = held
        workers = pool_of(named(names, port, clients))
        async with workers.monitored():
            await wait_until(workers.ready)
            asked = asyncio.create_task(ask(workers))
            await wait_until(lambda: stand_ins[0].calls)
            names.addresses = [HOSTS[1]]
            await wait_until(lambda: who(workers) == [f"http://{HOSTS[1]}:{port}"])
            assert not clients.made[f"http://{HOSTS[0]}:{port}"].is_closed
            release.set()
            assert (await asked).digest == INFO.digest
            await wait_until(lambda: clients.made[f"http://{HOSTS[0]}:{port}"].is_closed)


async def test_without_addresses_workers_that_do_not_answer_are_gone_and_others_stay() -> None:
    """As when workers are scaled to zero: those that ended do not count as unready for ever."""
    names = NameServer(*HOSTS)
    async with two() as (stand_ins, port):
        workers = pool_of(named(names, port))
        async with workers.monitored():
            await wait_until(lambda: len(who(workers)) == 2)
            names.addresses = []
            stand_ins[0].info = None
            await wait_until(lambda: len(workers.members) == 1)
            assert who(workers) == [f"http://{HOSTS[1]}:{port}"]

            stand_ins[1].info = None
            await wait_until(lambda: not workers.members)
            names.addresses, stand_ins[0].info = [HOSTS[0]], INFO
            await wait_until(workers.ready)


async def test_a_name_that_cannot_be_resolved_leaves_what_was_found() -> None:
    names = NameServer(*HOSTS)
    async with two() as (_, port):
        workers = pool_of(named(names, port))
        async with workers.monitored():
            await wait_until(lambda: len(who(workers)) == 2)
            names.addresses = None
            before = names.asked
            await wait_until(lambda: names.asked > before + 3)

            assert len(who(workers)) == 2
            assert (await ask(workers)).digest == INFO.digest


async def test_a_name_that_is_not_known_yet_is_asked_for_again() -> None:
    names = NameServer()
    names.addresses = None
    async with two() as (_, port):
        workers = pool_of(named(names, port))
        async with workers.monitored():
            await wait_until(lambda: names.asked > 2)
            with pytest.raises(NoWorker):
                await ask(workers)
            names.addresses = list(HOSTS)
            await wait_until(lambda: len(who(workers)) == 2)


async def test_named_and_listed_workers_stand_side_by_side() -> None:
    listed = StandIn(good)
    async with two() as (_, port):
        workers = pool_of(listed.client, named(NameServer(*HOSTS), port))
        async with workers.monitored():
            await wait_until(lambda: len(who(workers)) == 3)


async def test_addresses_become_urls_each_once_and_not_without_end() -> None:
    found = ["10.0.0.2", "10.0.0.1", "fd00::1", "fe80::1%eth0", "10.0.0.2"]
    assert await named(NameServer(*found), 8001).urls() == [
        "http://10.0.0.1:8001",
        "http://10.0.0.2:8001",
        "http://[fd00::1]:8001",
    ]
    many = NameServer(*(f"10.0.{number >> 8}.{number & 255}" for number in range(2_048)))

    assert len(await named(many, 8001).urls() or ()) == MAX_ADDRESSES
    assert await DnsName("x" * 70, 8001, Clients()).urls() is None, "no such name can be"


async def test_the_system_is_asked() -> None:
    assert HOSTS[0] in await look_up("localhost", 8001)


@pytest.mark.parametrize(
    "url",
    [
        "dns://",
        "dns://host",
        "dns://:80",
        "dns://host:0x1",
        "dns://host:99999",
        "dns://host:1/path",
        "dns://me@host:1",
        "http://h:1",
    ],
)
def test_other_names_are_none(url: str) -> None:
    assert dns_name(url) is None


def test_settings_take_names_and_urls_and_nothing_else() -> None:
    settings = GatewaySettings(workers="dns://workers:8001, http://127.0.0.1:8001")
    name, client = connect(settings.workers, settings.worker_dns_ms / 1000)
    assert isinstance(name, DnsName)
    assert (name.host, name.port, name.seconds) == ("workers", 8001, 5.0)
    assert isinstance(client, httpx.AsyncClient)
    with pytest.raises(ValidationError):
        GatewaySettings(workers="dns://workers")
