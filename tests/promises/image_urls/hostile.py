"""A hostile HTTPS server on loopback, with a fake resolver and a fake dialler that lead to it.

Everything between them is real: the URL's checks, the checks of resolved addresses, TLS, HTTP. The
resolver returns what a test configures; the dialler records the requested address, and connects to
the server instead.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpcore
import trustme

PUBLIC = "93.184.216.34"
OTHER = "93.184.216.35"
HOST = "img.example.com"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Resolver:
    """Returns the configured answers one by one, then the last one repeatedly. `asked` are the
    hosts."""

    def __init__(self, *answers: Iterable[str]) -> None:
        self._answers = [list(answer) for answer in answers]
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        found = self._answers[min(len(self.asked), len(self._answers)) - 1]
        if not found:
            raise OSError("no such host")
        return found


class Dialler(httpcore.AsyncNetworkBackend):
    """Connects to the server's port, whatever address is dialled; an address in `dead` refuses."""

    def __init__(self, port: int, dead: Iterable[str] = ()) -> None:
        self._port = port
        self._dead = set(dead)
        self._real = httpcore.AnyIOBackend()
        self.dialled: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.dialled.append((host, port))
        if host in self._dead:
            raise httpcore.ConnectError
        return await self._real.connect_tcp(
            "127.0.0.1", self._port, timeout, local_address, socket_options
        )


@dataclass(slots=True)
class Hostile:
    """The server: `answer` handles each request, `heads` are the requests received, `open` is
    the number of open connections."""

    answer: Answer
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await self.answer(writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def hostile(answer: Answer, authority: trustme.CA, *names: str) -> AsyncIterator[Hostile]:
    """The server with a certificate for `names`, by default for `HOST`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or (HOST,))).configure_cert(context)
    found = Hostile(answer)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


def says(*pieces: bytes) -> Answer:
    """A reply that is sent verbatim."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return answer


def ok(body: bytes, *headers: str) -> Answer:
    """A 200 reply with further headers."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return says(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode(), body)


async def forever(
    writer: asyncio.StreamWriter, head: bytes, piece: bytes, pause: float = 0.0
) -> None:
    """A reply that never ends."""
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)
