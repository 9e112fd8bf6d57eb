"""Fetches images at URLs, from public hosts alone. It is off unless the operator turns it on.

The module depends on names, addresses and one GET, on no item and no image format. Invariant: a
host is looked up once; if every address that it resolves to is public, one of those addresses is
connected to; no reply leads to a second request, and none costs more than its bounds of bytes and
time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore
import httpx

from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    RerankError,
)
from service.gateway.media.encoded_image import EncodedImage
from service.gateway.media.urls import HTTPS_PORT, FetchRules, Target, is_public, read_url
from service.observability.metrics import IMAGE_FETCHES
from service.observability.request_context import stage

CONNECT_SECONDS = 2.0
MAX_ADDRESSES = 3
"""Addresses of a host that are tried. All are checked."""
FETCHES_PER_REQUEST = 8
"""Images that are fetched at a time for one request, so that slow hosts in one request leave room
for others."""

_NO_HOST = "The image's URL names no public host."
_NO_IMAGE = "The image cannot be fetched from its URL."
_REDIRECTS = "The image's URL leads to another: send that one."
_COMPRESSED = "The image's host sent it compressed, though asked not to."
_TOO_SLOW = "The image took too long to fetch."
_TOO_MUCH = "The images at this request's URLs are larger than one request may be."

_HEADERS = (
    (b"Accept", b"image/png, image/jpeg, image/webp"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"gmr-rerank"),
)

Fetched = Mapping[str, bytes | EncodedImage | RerankError]
"""The bytes at each URL and the image of each reference of a request, or the error instead."""
Resolve = Callable[[str], Iterable[str]]
"""Resolves a host name to its addresses; it blocks, and raises `OSError`."""


def resolve(host: str) -> list[str]:
    """A host's addresses by the system's resolver; raises `OSError`."""
    # the final dot keeps the resolver from appending its search domains
    found = socket.getaddrinfo(
        f"{host}.", HTTPS_PORT, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [str(address[0]) for *_, address in found]


class Fetcher:
    """Fetches images by `rules`, at most `rules.at_once` at a time over all requests."""

    def __init__(
        self,
        rules: FetchRules,
        *,
        resolve: Resolve = resolve,
        backend: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._backend = backend or httpcore.AnyIOBackend()
        self._ssl_context = ssl_context or httpx.create_ssl_context()
        self._slots = asyncio.Semaphore(rules.at_once)
        # threads of its own, so that a name server that does not reply blocks no other lookup
        self._lookups = ThreadPoolExecutor(rules.at_once, thread_name_prefix="names")

    async def fetch(self, urls: Collection[str], deadline: float) -> dict[str, bytes | RerankError]:
        """The bytes at each of a request's URLs, fetched before `deadline` (event loop time).

        Raises `InvalidRequest` where there are too many URLs.
        """
        if len(urls) > self._rules.max_urls:
            raise InvalidRequest(f"A request may name {self._rules.max_urls} image URLs.")

        budget = _ByteBudget(self._rules.max_request_bytes)
        request_slots = asyncio.Semaphore(FETCHES_PER_REQUEST)
        with stage("fetch"):
            fetched = await asyncio.gather(
                *(self._outcome(url, budget, request_slots, deadline) for url in urls)
            )
        return dict(zip(urls, fetched, strict=True))

    async def _outcome(
        self, url: str, budget: _ByteBudget, request_slots: asyncio.Semaphore, deadline: float
    ) -> bytes | RerankError:
        try:
            async with asyncio.timeout_at(deadline), request_slots, self._slots:
                data = await self._in_time(read_url(url, self._rules.hosts), budget)
        except TimeoutError:
            IMAGE_FETCHES.labels("deadline").inc()
            return DeadlineExceeded()
        except RerankError as error:
            IMAGE_FETCHES.labels(error.code).inc()
            return error

        IMAGE_FETCHES.labels("fetched").inc()
        return data

    async def _in_time(self, target: Target, budget: _ByteBudget) -> bytes:
        """Fetch within the time of one image; raises `TimeoutError` where the request's deadline
        ends it first."""
        try:
            async with asyncio.timeout(self._rules.seconds) as timeout:
                return await self._get(target, await self._addresses(target.host), budget)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise InvalidImage(_TOO_SLOW) from None

    async def _addresses(self, host: str) -> Sequence[str]:
        """The addresses of a host, from one lookup; raises `InvalidImage` unless all are public."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._lookups, lambda: list(dict.fromkeys(self._resolve(host)))
            )
        except (OSError, UnicodeError):
            found = []
        if not found or not all(map(is_public, found)):
            raise InvalidImage(_NO_HOST)
        return found[:MAX_ADDRESSES]

    async def _get(self, target: Target, addresses: Sequence[str], budget: _ByteBudget) -> bytes:
        host = target.host.encode()
        url = httpcore.URL(scheme=b"https", host=host, port=HTTPS_PORT, target=target.path.encode())
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._ssl_context,
            network_backend=_PinnedBackend(self._backend, addresses),
        )
        headers = [(b"Host", host), *_HEADERS]
        extensions = {"timeout": {"connect": CONNECT_SECONDS}}
        try:
            async with (
                pool,
                pool.stream("GET", url, headers=headers, extensions=extensions) as response,
            ):
                return await self._body(response, budget)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            raise InvalidImage(_NO_IMAGE) from None

    async def _body(self, response: httpcore.Response, budget: _ByteBudget) -> bytes:
        """The response's bytes; their declared type and length are ignored."""
        if 300 <= response.status < 400:
            raise InvalidImage(_REDIRECTS)
        if response.status != httpx.codes.OK:
            raise InvalidImage(_NO_IMAGE)
        if _is_compressed(response):
            raise InvalidImage(_COMPRESSED)

        most = self._rules.max_image_bytes
        data = bytearray()
        async for chunk in response.aiter_stream():
            data += chunk
            if len(data) > most:
                raise ImageTooLarge(f"The image is larger than {most} bytes.")
            budget.spend(len(chunk))
        return bytes(data)


class _ByteBudget:
    """The bytes that may still be fetched for one request."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ImageTooLarge(_TOO_MUCH)


class _PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the first of the given addresses that accepts, and ignores the host of the
    call."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, addresses: Sequence[str]) -> None:
        self._backend = backend
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
                return await self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def _is_compressed(response: httpcore.Response) -> bool:
    for name, value in response.headers:
        if name.lower() == b"content-encoding" and value.lower() != b"identity":
            return True
    return False
