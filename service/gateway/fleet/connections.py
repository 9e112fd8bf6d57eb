"""HTTP clients of workers, by the URLs of the settings.

Depends on URLs, not on what workers answer. Invariant: an idle connection is closed before its
worker closes it, so that no call is sent on a connection that is being closed.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from service.gateway.fleet.discovery import DnsName, dns_name

_CONNECT_SECONDS = 2.0
_KEEP_ALIVE_SECONDS = 2.0
"""Shorter than a worker keeps an idle connection (5 seconds or more)."""
_KEPT_CONNECTIONS = 32
"""Idle connections that are kept to each worker."""


def connect(urls: Sequence[str], dns_seconds: float) -> list[httpx.AsyncClient | DnsName]:
    """A client for each worker's URL, and a DNS name for each `dns://` URL, looked up every
    `dns_seconds`."""
    sources: list[httpx.AsyncClient | DnsName] = []
    for url in urls:
        name = dns_name(url)
        if name is None:
            sources.append(_client(url))
        else:
            host, port = name
            sources.append(DnsName(host, port, connect=_client, seconds=dns_seconds))
    return sources


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=_KEPT_CONNECTIONS,
        keepalive_expiry=_KEEP_ALIVE_SECONDS,
    )
    # the deadline of a call ends it, so a request has no timeout of its own
    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
    return httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False)
