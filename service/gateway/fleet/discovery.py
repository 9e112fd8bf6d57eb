"""Where workers are found: a name in DNS that is looked up again and again, since what it stands
for comes and goes.

Knows names and addresses, nothing of workers. Invariant: a look-up that fails says nothing; what
was found before still holds.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio.to_thread
import httpx

DNS = "dns"
"""`dns://host:port`: a worker at every address of the host, each over HTTP."""
MAX_ADDRESSES = 1_024

LookUp = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host; raises `OSError` where it has none, or nobody can say."""


async def look_up(host: str, port: int) -> list[str]:
    """The system's own answer, on a thread that is left behind where the answer never comes."""
    found = await anyio.to_thread.run_sync(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), abandon_on_cancel=True
    )
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class DnsName:
    """A host whose addresses are workers; `connect` makes the client for a URL. It is looked up
    every `seconds`."""

    host: str
    port: int
    connect: Callable[[str], httpx.AsyncClient]
    look_up: LookUp = look_up
    seconds: float = 5.0

    async def urls(self) -> list[str] | None:
        """The workers' URLs, each once and in order, at most `MAX_ADDRESSES`; None where the name
        cannot be resolved."""
        try:
            addresses = sorted(set(await self.look_up(self.host, self.port)))
        except (OSError, UnicodeError):
            return None
        hosts = [f"[{each}]" if ":" in each else each for each in addresses if "%" not in each]
        return [f"http://{host}:{self.port}" for host in hosts[:MAX_ADDRESSES]]


def dns_name(url: str) -> tuple[str, int] | None:
    """Host and port of a `dns://host:port`; None for another URL, and for one without a host or a
    valid port."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    return (
        (parts.hostname, port)
        if parts.scheme == DNS and parts.hostname and port and plain
        else None
    )
