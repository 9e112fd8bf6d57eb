"""Image URLs are fetched from public hosts only, and whatever a host does, size and time are
bounded."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    RerankError,
)
from service.gateway.media.fetching import FETCHES_PER_REQUEST, Fetcher
from service.gateway.media.urls import HTTPS_PORT, FetchRules
from tests.gateway.addresses import INNER_V4, spellings
from tests.gateway.encoded_pictures import encode, picture
from tests.promises.image_urls.hostile import (
    HOST,
    OTHER,
    PUBLIC,
    Answer,
    Dialler,
    Hostile,
    Resolver,
    forever,
    hostile,
    ok,
    says,
)

PNG = encode(picture())
URL = f"https://{HOST}/a.png?size=1"
RULES = FetchRules(
    hosts=(),
    seconds=30,
    at_once=32,
    max_urls=64,
    max_image_bytes=2**20,
    max_request_bytes=4 * 2**20,
)
QUICK = replace(RULES, seconds=0.5)
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
A_CHUNK = b"10000\r\n" + b"x" * 2**16 + b"\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class Scene:
    """A fetcher between a resolver, a dialler and a hostile server."""

    def __init__(
        self,
        server: Hostile,
        resolver: Resolver,
        trusted: ssl.SSLContext,
        rules: FetchRules,
        dead: str,
    ) -> None:
        self.server = server
        self.resolver = resolver
        self.dialler = Dialler(server.port, {dead})
        self.fetcher = Fetcher(rules, resolve=resolver, backend=self.dialler, ssl_context=trusted)

    async def get(self, url: str = URL, seconds: float = 60) -> bytes | RerankError:
        (found,) = (
            await self.fetcher.fetch([url], asyncio.get_running_loop().time() + seconds)
        ).values()
        return found


@asynccontextmanager
async def scene(
    answer: Answer,
    authority: trustme.CA,
    trusted: ssl.SSLContext,
    *resolved: list[str],
    rules: FetchRules = RULES,
    names: tuple[str, ...] = (),
    dead: str = "",
) -> AsyncIterator[Scene]:
    async with hostile(answer, authority, *names) as server:
        yield Scene(server, Resolver(*(resolved or ([PUBLIC],))), trusted, rules, dead)


async def test_an_image_is_fetched_from_the_address_that_was_checked(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    async with scene(ok(PNG), authority, trusted) as scene_:
        assert await scene_.get() == PNG
    assert scene_.resolver.asked == [HOST]
    assert scene_.dialler.dialled == [(PUBLIC, HTTPS_PORT)]
    (head,) = scene_.server.heads
    lines = head.decode().split("\r\n")
    assert lines[0] == "GET /a.png?size=1 HTTP/1.1"
    names = {line.partition(":")[0].lower(): line.partition(": ")[2] for line in lines[1:] if line}
    assert names == {
        "host": HOST,
        "accept": "image/png, image/jpeg, image/webp",
        "accept-encoding": "identity",
        "user-agent": "gmr-rerank",
    }


@pytest.mark.parametrize(
    "header", ["Content-Type: text/html", "Content-Encoding: identity", "X-Any: thing"]
)
async def test_what_a_reply_is_called_does_not_matter(
    authority: trustme.CA, trusted: ssl.SSLContext, header: str
) -> None:
    async with scene(ok(PNG, header), authority, trusted) as scene_:
        assert await scene_.get() == PNG


async def test_chunks_and_a_closed_connection_end_a_body_as_well(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    chunked = ENDLESS + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PNG), PNG)
    for reply in (chunked, b"HTTP/1.1 200 OK\r\n\r\n" + PNG):
        async with scene(says(reply), authority, trusted) as scene_:
            assert await scene_.get() == PNG


@pytest.mark.parametrize(
    "resolved",
    [
        [],
        ["127.0.0.1"],
        ["169.254.169.254"],
        [PUBLIC, "10.0.0.7"],
        ["10.0.0.7", PUBLIC],
        [PUBLIC, OTHER, "::1"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
        ["2002:7f00:1::"],
        ["fd00:ec2::254"],
        ["fe80::1%eth0"],
        ["0.0.0.0"],
        ["not an address"],
    ],
)
async def test_a_host_that_is_not_public_altogether_is_not_dialled(
    authority: trustme.CA, trusted: ssl.SSLContext, resolved: list[str]
) -> None:
    async with scene(ok(PNG), authority, trusted, resolved) as scene_:
        assert isinstance(await scene_.get(), InvalidImage)
    assert scene_.dialler.dialled == []
    assert scene_.server.heads == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_no_spelling_of_an_inner_address_is_dialled(data: st.DataObject) -> None:
    network = data.draw(st.sampled_from(INNER_V4))
    address = network[data.draw(st.integers(0, network.num_addresses - 1))]
    resolver, dialler = Resolver([str(address)]), Dialler(1)
    fetcher = Fetcher(
        RULES, resolve=resolver, backend=dialler, ssl_context=ssl.create_default_context()
    )
    urls = {
        f"https://{spelling}{end}"
        for spelling in spellings(address)
        for end in ("", "/a.png", ":443/")
    }
    urls.add(f"https://{HOST}/")  # by name
    found = await fetcher.fetch(
        list(urls)[: RULES.max_urls], asyncio.get_running_loop().time() + 60
    )
    assert all(isinstance(each, InvalidImage) for each in found.values())
    assert dialler.dialled == []
    assert set(resolver.asked) <= {HOST}


async def test_a_name_is_looked_up_once_so_that_it_cannot_change(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    async with scene(ok(PNG), authority, trusted, [PUBLIC], ["169.254.169.254"]) as scene_:
        assert await scene_.get() == PNG
        assert scene_.resolver.asked == [HOST]
        assert isinstance(await scene_.get(), InvalidImage)
    assert scene_.dialler.dialled == [(PUBLIC, HTTPS_PORT)]


async def test_another_checked_address_is_tried_where_the_first_does_not_answer(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    async with scene(ok(PNG), authority, trusted, [PUBLIC, OTHER, PUBLIC], dead=PUBLIC) as scene_:
        assert await scene_.get() == PNG
    assert scene_.dialler.dialled == [(PUBLIC, HTTPS_PORT), (OTHER, HTTPS_PORT)]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize(
    "to", ["https://169.254.169.254/latest/meta-data/", f"https://{HOST}/b.png", "//localhost/", ""]
)
async def test_no_redirect_is_followed(
    authority: trustme.CA, trusted: ssl.SSLContext, status: int, to: str
) -> None:
    reply = (
        f"HTTP/1.1 {status} Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\nRefresh: 0;"
        f" url={to}\r\n\r\n"
    )
    async with scene(says(reply.encode()), authority, trusted) as scene_:
        assert isinstance(await scene_.get(), InvalidImage)
    assert (
        len(scene_.server.heads) == len(scene_.dialler.dialled) == len(scene_.resolver.asked) == 1
    )


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 x\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + PNG,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + PNG,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + PNG,
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        ENDLESS + b"zz\r\nxx\r\n",
        ENDLESS + b"5\r\nab",
        b"\x00\x01\x02 no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**20 + b"\r\n\r\n" + PNG,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: y\r\n" * 100_000 + b"\r\n" + PNG,
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ],
    ids=range(17),
)
async def test_a_reply_that_is_no_image_is_refused(
    authority: trustme.CA, trusted: ssl.SSLContext, reply: bytes
) -> None:
    async with scene(says(reply), authority, trusted) as scene_:
        error = await scene_.get()
    assert type(error) is InvalidImage
    assert len(scene_.server.heads) == 1


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate, gzip", "zstd", "x"])
async def test_nothing_is_decompressed(
    authority: trustme.CA, trusted: ssl.SSLContext, coding: str
) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    async with scene(ok(bomb, f"Content-Encoding: {coding}"), authority, trusted) as scene_:
        assert type(await scene_.get()) is InvalidImage
    async with scene(ok(bomb), authority, trusted) as scene_:
        assert await scene_.get() == bomb


async def test_a_body_is_read_up_to_its_limit_whatever_length_it_claims(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        await forever(writer, ENDLESS, A_CHUNK)

    async def longer_than_it_says(writer: asyncio.StreamWriter) -> None:
        await forever(
            writer, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 2**16
        )

    for answer in (endless, longer_than_it_says):
        async with scene(answer, authority, trusted) as scene_:
            error = await scene_.get()
        assert type(error) is ImageTooLarge
        assert error.message == f"The image is larger than {RULES.max_image_bytes} bytes."
    async with scene(ok(b"x" * RULES.max_image_bytes), authority, trusted) as scene_:
        assert await scene_.get() == b"x" * RULES.max_image_bytes
    async with scene(
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"), authority, trusted
    ) as scene_:
        assert await scene_.get() == b"abc"


@pytest.mark.parametrize("drips", ["header", "body", "informational"])
async def test_a_slow_host_costs_its_time_and_no_more(
    authority: trustme.CA, trusted: ssl.SSLContext, drips: str
) -> None:
    heads = {
        "header": b"HTTP/1.1 200 OK\r\nX: ",
        "body": ENDLESS,
        "informational": b"HTTP/1.1 100 Continue\r\n\r\n",
    }
    pieces = {
        "header": b"x",
        "body": b"1\r\nx\r\n",
        "informational": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    }

    async def drip(writer: asyncio.StreamWriter) -> None:
        await forever(writer, heads[drips], pieces[drips], 0.01)

    async with scene(drip, authority, trusted, rules=QUICK) as scene_:
        error = await scene_.get()
    assert type(error) is InvalidImage
    assert error.message == "The image took too long to fetch."


async def test_a_host_that_never_says_a_word_costs_its_time_and_no_more(
    trusted: ssl.SSLContext,
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fetcher = Fetcher(
            QUICK,
            resolve=Resolver([PUBLIC]),
            backend=Dialler(silent.getsockname()[1]),
            ssl_context=trusted,
        )
        (error,) = (await fetcher.fetch([URL], asyncio.get_running_loop().time() + 60)).values()
    assert type(error) is InvalidImage
    assert error.message == "The image took too long to fetch."


async def test_a_requests_deadline_comes_before_an_images_time(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        await forever(writer, ENDLESS, b"1\r\nx\r\n", 0.01)

    async with scene(drip, authority, trusted) as scene_:
        assert type(await scene_.get(seconds=0.5)) is DeadlineExceeded


async def test_a_resolver_that_never_answers_is_not_waited_for(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    done = threading.Event()

    def stuck(host: str) -> list[str]:
        done.wait(60)
        return [PUBLIC]

    dialler = Dialler(1)
    fetcher = Fetcher(QUICK, resolve=stuck, backend=dialler, ssl_context=trusted)
    (error,) = (await fetcher.fetch([URL], asyncio.get_running_loop().time() + 60)).values()
    done.set()
    assert type(error) is InvalidImage
    assert dialler.dialled == []


@pytest.mark.parametrize(
    "names", [("evil.example.com",), ("example.com",), ("*.com",), (PUBLIC,), ("localhost",)]
)
async def test_a_certificate_for_another_name_is_refused(
    authority: trustme.CA, trusted: ssl.SSLContext, names: tuple[str, ...]
) -> None:
    async with scene(ok(PNG), authority, trusted, names=names) as scene_:
        assert type(await scene_.get()) is InvalidImage
    assert scene_.server.heads == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    async with scene(ok(PNG), trustme.CA(), trusted) as scene_:
        assert type(await scene_.get()) is InvalidImage
    assert scene_.server.heads == []


async def test_a_host_without_tls_and_one_that_hangs_up_are_refused(
    trusted: ssl.SSLContext,
) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        writer.close()

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    for behaviour in (plain, reset):
        async with await asyncio.start_server(behaviour, "127.0.0.1", 0) as server:
            dialler = Dialler(server.sockets[0].getsockname()[1])
            fetcher = Fetcher(
                RULES, resolve=Resolver([PUBLIC]), backend=dialler, ssl_context=trusted
            )
            (error,) = (await fetcher.fetch([URL], asyncio.get_running_loop().time() + 60)).values()
        assert type(error) is InvalidImage
        assert dialler.dialled == [(PUBLIC, HTTPS_PORT)]


async def test_nobody_is_told_more_than_once_or_anything_of_another(
    authority: trustme.CA, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cookie is returned, no proxy is used, no credential is sent."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://user:password@127.0.0.1:9")
    async with scene(ok(PNG, f"Set-Cookie: a=b; Domain={HOST}"), authority, trusted) as scene_:
        assert await scene_.get() == await scene_.get() == PNG
    for head in scene_.server.heads:
        assert not {b"cookie", b"authorization", b"proxy", b"referer"} & set(
            head.lower().replace(b":", b" ").split()
        )


async def test_a_request_is_bounded_in_urls_in_bytes_and_at_a_time(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    release = asyncio.Event()

    async def held(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await ok(b"x" * 2**19)(writer)

    urls = [f"https://{HOST}/{number}" for number in range(RULES.max_urls)]
    async with scene(held, authority, trusted) as scene_:
        until = asyncio.get_running_loop().time() + 60
        with pytest.raises(InvalidRequest):
            await scene_.fetcher.fetch([*urls, URL], until)
        assert scene_.resolver.asked == []
        fetching = asyncio.create_task(scene_.fetcher.fetch(urls, until))
        while scene_.server.open < FETCHES_PER_REQUEST:
            await asyncio.sleep(0)
        release.set()
        found = list((await fetching).values())
        assert scene_.server.most_open == FETCHES_PER_REQUEST
    whole = [each for each in found if isinstance(each, bytes)]
    assert 0 < len(whole) <= RULES.max_request_bytes // 2**19
    assert {type(each) for each in found if not isinstance(each, bytes)} == {ImageTooLarge}


async def test_all_requests_together_are_bounded(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    release = asyncio.Event()

    async def held(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await ok(PNG)(writer)

    async with scene(held, authority, trusted, rules=replace(RULES, at_once=3)) as scene_:
        asking = [
            asyncio.create_task(scene_.get(f"https://{HOST}/{number}")) for number in range(12)
        ]
        while scene_.server.open < 3:
            await asyncio.sleep(0)
        release.set()
        assert await asyncio.gather(*asking) == [PNG] * 12
        assert scene_.server.most_open == 3


async def test_a_caller_that_leaves_takes_its_fetches_along(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    never = asyncio.Event()

    async def held(writer: asyncio.StreamWriter) -> None:
        writer.write(ENDLESS)
        while not writer.transport.is_closing():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
        never.set()

    async with scene(held, authority, trusted, rules=replace(RULES, at_once=1)) as scene_:
        leaving = asyncio.create_task(scene_.get())
        while not scene_.server.open:
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.wait_for(never.wait(), 60)
        scene_.server.answer = ok(PNG)
        assert await scene_.get() == PNG
