"""Discovery of workers: a DNS name is resolved periodically, because its addresses change.

Depends on names and addresses, not on workers. Invariant: a failed lookup changes nothing: the
addresses found before still hold. A name without addresses, as that of a Service without pods, is
no failure.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio.to_thread
import httpx

DNS = "dns"
"""Scheme of `dns://host:port`: one worker at every address of the host, over HTTP."""
MAX_ADDRESSES = 1_024
_NO_ADDRESS = {socket.EAI_NONAME, socket.EAI_NODATA}
"""Errors of a resolver that has asked, and was told that there is no address."""

LookUp = Callable[[str, int], Awaitable[list[str]]]
"""Looks up the addresses of a host and port; raises `OSError` where that fails."""


async def look_up(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver has for a host.

    The thread is abandoned where the caller is cancelled: a resolver may block for minutes.
    """
    found = await anyio.to_thread.run_sync(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), abandon_on_cancel=True
    )
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class DnsName:
    """A host with a worker at each of its addresses, looked up every `seconds`; `connect` makes the
    client of a URL."""

    host: str
    port: int
    connect: Callable[[str], httpx.AsyncClient]
    look_up: LookUp = look_up
    seconds: float = 5.0

    async def urls(self) -> list[str] | None:
        """The URLs of the workers, sorted, each once, at most `MAX_ADDRESSES`; none where the name
        has no address; None where the lookup fails."""
        try:
            addresses = await self.look_up(self.host, self.port)
        except socket.gaierror as error:
            return [] if error.errno in _NO_ADDRESS else None
        except (OSError, UnicodeError):
            return None

        urls: list[str] = []
        for address in sorted(set(addresses)):
            if "%" in address:  # a link-local address, which has no form in a URL
                continue
            host = f"[{address}]" if ":" in address else address
            urls.append(f"http://{host}:{self.port}")
        return urls[:MAX_ADDRESSES]


def dns_name(url: str) -> tuple[str, int] | None:
    """The host and port of `dns://host:port`; None for any other URL, and where one of the two is
    missing or invalid."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None

    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    if parts.scheme != DNS or not parts.hostname or not port:
        return None
    return parts.hostname, port
