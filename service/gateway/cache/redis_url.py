"""Where a Redis is, as an operator writes it: one URL for a single server, Sentinels, or a Cluster.

Knows URLs, no sockets. Invariant: an address names one to `MAX_NODES` nodes, and no part of a URL
is ever repeated in an error.

    redis://[user:password@]host[:port][/db]                          rediss:// over TLS
    redis+sentinel://[user:password@]host[:port],.../service[/db]     rediss+sentinel:// over TLS
    redis+cluster://[user:password@]host[:port],...                   rediss+cluster:// over TLS
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

Kind = Literal["single", "sentinel", "cluster"]

MAX_NODES = 64
MAX_DATABASE = 65_535
_KINDS: dict[str, Kind] = {"": "single", "+sentinel": "sentinel", "+cluster": "cluster"}
_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}


class BadAddress(ValueError):
    """A URL that names no Redis; its text is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a URL says. `nodes` are (host, port): the server, the Sentinels, or some of the
    Cluster's nodes."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    service: str = ""
    database: int = 0


def read_address(url: str) -> RedisAddress:
    """A URL as an address; raises `BadAddress`."""
    scheme, found, rest = url.partition("://")
    base, plus, way = scheme.partition("+")
    if not found or base not in ("redis", "rediss") or plus + way not in _KINDS:
        raise BadAddress(
            "A Redis URL begins with redis://, redis+sentinel:// or redis+cluster://, or rediss"
            " for TLS"
        )
    if any(character in rest for character in "?#"):
        raise BadAddress(
            "A Redis URL has no query and no fragment: options are settings of their own"
        )
    kind = _KINDS[plus + way]
    authority, _, path = rest.partition("/")
    credentials, _, places = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    nodes = tuple(_node(place, _PORTS[kind]) for place in places.split(","))
    if len(nodes) > MAX_NODES or (kind == "single" and len(nodes) > 1):
        raise BadAddress(
            f"A Redis URL names one server, or up to {MAX_NODES} Sentinels or Cluster nodes"
        )
    service, database = _path(kind, path)
    return RedisAddress(
        kind=kind,
        nodes=nodes,
        tls=base == "rediss",
        username=unquote(username) or None,
        password=unquote(password) or None,
        service=service,
        database=database,
    )


def _node(place: str, port: int) -> tuple[str, int]:
    host, colon, number = place.rpartition(":")
    if not colon or place.endswith("]"):  # no port, or an IPv6 address alone
        host, number = place, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (number.isascii() and number.isdecimal() and 1 <= int(number[:6]) <= 65_535):
        raise BadAddress("A Redis URL names hosts as host or host:port, comma-separated")
    return host, int(number)


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """(Sentinel's service, database)."""
    service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise BadAddress(
            "A Sentinel URL names the service that it watches: redis+sentinel://host:26379/mymaster"
        )
    if kind == "cluster" and database not in ("", "0"):
        raise BadAddress("A Redis Cluster has no databases but 0")
    if (database and not (database.isascii() and database.isdecimal())) or int(
        database[:6] or 0
    ) > MAX_DATABASE:
        raise BadAddress("A Redis URL ends in the number of a database, or in nothing")
    return unquote(service), int(database or 0)
