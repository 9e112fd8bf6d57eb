"""Images at URLs, fetched from public hosts and nowhere else. Off unless the operator turns it on.

Knows names, addresses and one GET, nothing of items or of what an image is. Invariant: a host is
looked up once; if all that it resolves to is public, one of those very addresses is dialled; no
reply leads to a second request, and none costs more than its bytes and its time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpcore
import httpx

from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    RerankError,
)
from service.gateway.media.urls import HTTPS_PORT, Target, is_public, read_url
from service.observability.metrics import IMAGE_FETCHES
from service.observability.request_context import stage

CONNECT_SECONDS = 2.0
ADDRESSES_TRIED = 3
"""Of a host that resolves to several addresses; all are checked."""
A_REQUEST_AT_ONCE = 8
"""Images that one request has fetched at a time: slow hosts named by one caller leave room for
others."""

_NO_HOST = "The image's URL names no public host."
_NO_IMAGE = "The image cannot be fetched from its URL."
_REDIRECTS = "The image's URL leads to another: send that one."
_ENCODED = "The image's host sent it compressed, though asked not to."
_TOO_SLOW = "The image took too long to fetch."
_TOO_MUCH = "The images at this request's URLs are larger than one request may be."

_HEADERS = (
    (b"Accept", b"image/png, image/jpeg, image/webp"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"gmr-rerank"),
)

Fetched = dict[str, bytes | RerankError]
"""The bytes at each URL, or why there are none."""
Resolve = Callable[[str], Iterable[str]]
"""A host name's addresses; blocking; raises `OSError`."""


@dataclass(frozen=True, slots=True)
class FetchRules:
    """What may be fetched: from which hosts (empty: from any that is public), how much, for how
    long."""

    hosts: tuple[str, ...]
    seconds: float
    at_once: int
    max_urls: int
    max_image_bytes: int
    max_request_bytes: int


def resolve(host: str) -> list[str]:
    """A host's addresses by the system's resolver; raises `OSError`. The final dot keeps search
    domains out of it."""
    found = socket.getaddrinfo(
        f"{host}.", HTTPS_PORT, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [str(address[0]) for *_, address in found]


class Fetcher:
    """Fetches images by `rules`, over all requests no more than `rules.at_once` at a time."""

    def __init__(
        self,
        rules: FetchRules,
        *,
        resolve: Resolve = resolve,
        dial: httpcore.AsyncNetworkBackend | None = None,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._dial = dial or httpcore.AnyIOBackend()
        self._trusted = trusted or httpx.create_ssl_context()
        self._slots = asyncio.Semaphore(rules.at_once)
        # threads of its own: a name server that never answers must not hold up those that look for
        # workers
        self._lookups = ThreadPoolExecutor(rules.at_once, thread_name_prefix="names")

    async def fetch(self, urls: Collection[str], until: float) -> Fetched:
        """What is at each of a request's URLs, before `until` (event loop time); raises
        `InvalidRequest` where they are many."""
        if len(urls) > self._rules.max_urls:
            raise InvalidRequest(f"A request may name {self._rules.max_urls} image URLs.")
        allowance = _Allowance(self._rules.max_request_bytes)
        own = asyncio.Semaphore(A_REQUEST_AT_ONCE)
        with stage("fetch"):
            fetched = await asyncio.gather(
                *(self._fetched(url, allowance, own, until) for url in urls)
            )
        return dict(zip(urls, fetched, strict=True))

    async def _fetched(
        self, url: str, allowance: _Allowance, own: asyncio.Semaphore, until: float
    ) -> bytes | RerankError:
        try:
            async with asyncio.timeout_at(until), own, self._slots:
                data = await self._in_time(read_url(url, self._rules.hosts), allowance)
        except TimeoutError:
            IMAGE_FETCHES.labels("deadline").inc()
            return DeadlineExceeded()
        except RerankError as error:
            IMAGE_FETCHES.labels(error.code).inc()
            return error
        IMAGE_FETCHES.labels("fetched").inc()
        return data

    async def _in_time(self, target: Target, allowance: _Allowance) -> bytes:
        try:
            async with asyncio.timeout(self._rules.seconds) as limit:
                return await self._get(target, await self._addresses(target.host), allowance)
        except TimeoutError:
            if not limit.expired():
                raise
            raise InvalidImage(_TOO_SLOW) from None

    async def _addresses(self, host: str) -> Sequence[str]:
        """What a host resolves to, this once; raises `InvalidImage` unless all of it is public."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._lookups, lambda: [*dict.fromkeys(self._resolve(host))]
            )
        except (OSError, UnicodeError):
            found = []
        if not found or not all(map(is_public, found)):
            raise InvalidImage(_NO_HOST)
        return found[:ADDRESSES_TRIED]

    async def _get(self, target: Target, addresses: Sequence[str], allowance: _Allowance) -> bytes:
        host = target.host.encode()
        url = httpcore.URL(scheme=b"https", host=host, port=HTTPS_PORT, target=target.path.encode())
        pinned = _Pinned(self._dial, addresses)
        try:
            async with (
                httpcore.AsyncConnectionPool(
                    ssl_context=self._trusted, network_backend=pinned
                ) as pool,
                pool.stream(
                    "GET",
                    url,
                    headers=[(b"Host", host), *_HEADERS],
                    extensions={"timeout": {"connect": CONNECT_SECONDS}},
                ) as response,
            ):
                return await self._body(response, allowance)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            raise InvalidImage(_NO_IMAGE) from None

    async def _body(self, response: httpcore.Response, allowance: _Allowance) -> bytes:
        """The reply's bytes as they came; whatever its type says, `media` looks at what it is."""
        if 300 <= response.status < 400:
            raise InvalidImage(_REDIRECTS)
        if response.status != httpx.codes.OK:
            raise InvalidImage(_NO_IMAGE)
        if any(
            name.lower() == b"content-encoding" and value.lower() != b"identity"
            for name, value in response.headers
        ):
            raise InvalidImage(_ENCODED)
        most = self._rules.max_image_bytes
        data = bytearray()
        async for chunk in response.aiter_stream():  # what its length is said to be does not matter
            data += chunk
            if len(data) > most:
                raise ImageTooLarge(f"The image is larger than {most} bytes.")
            allowance.take(len(chunk))
        return bytes(data)


class _Allowance:
    """The bytes that one request may still have fetched."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ImageTooLarge(_TOO_MUCH)


class _Pinned(httpcore.AsyncNetworkBackend):
    """Dials the given addresses, one after the other until one answers, whatever host it is asked
    for."""

    def __init__(self, dial: httpcore.AsyncNetworkBackend, addresses: Sequence[str]) -> None:
        self._dial = dial
        self._addresses = addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError()
        for address in self._addresses:
            try:
                return await self._dial.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure
