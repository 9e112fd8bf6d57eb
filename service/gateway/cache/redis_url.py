"""The address of a Redis as an operator writes it: one URL for a server, Sentinels, or a Cluster.

The module depends on the syntax of URLs, on no socket. Invariant: an address has one to `MAX_NODES`
nodes, and no error repeats a part of a URL.

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
_KINDS: dict[str, Kind] = {
    "redis": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss": "single",
    "rediss+sentinel": "sentinel",
    "rediss+cluster": "cluster",
}
_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}


class BadAddress(ValueError):
    """A URL that is no address of a Redis; its text is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The parts of a URL. `nodes` are (host, port) of the server, of the Sentinels, or of some of
    the Cluster's nodes."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    service: str = ""
    database: int = 0


def read_address(url: str) -> RedisAddress:
    """The address in a URL; raises `BadAddress`."""
    scheme, separator, rest = url.partition("://")
    kind = _KINDS.get(scheme)
    if not separator or kind is None:
        raise BadAddress(
            "A Redis URL begins with redis://, redis+sentinel:// or redis+cluster://, or rediss"
            " for TLS"
        )
    if "?" in rest or "#" in rest:
        raise BadAddress(
            "A Redis URL has no query and no fragment: options are settings of their own"
        )

    authority, _, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    nodes = tuple(_node(host, _PORTS[kind]) for host in hosts.split(","))
    if len(nodes) > MAX_NODES or (kind == "single" and len(nodes) > 1):
        raise BadAddress(
            f"A Redis URL names one server, or up to {MAX_NODES} Sentinels or Cluster nodes"
        )

    service, database = _service_and_database(kind, path)
    return RedisAddress(
        kind=kind,
        nodes=nodes,
        tls=scheme.startswith("rediss"),
        username=unquote(username) or None,
        password=unquote(password) or None,
        service=service,
        database=database,
    )


def _node(text: str, default_port: int) -> tuple[str, int]:
    """(host, port) of `host`, `host:port` or `[IPv6 address]:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # no port, or an IPv6 address alone
        host, port = text, str(default_port)
    host = host.removeprefix("[").removesuffix("]")

    is_port = port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65_535
    if not host or not is_port:
        raise BadAddress("A Redis URL names hosts as host or host:port, comma-separated")
    return host, int(port)


def _service_and_database(kind: Kind, path: str) -> tuple[str, int]:
    """(name of the service that Sentinels monitor, number of the database)."""
    service, database = "", path
    if kind == "sentinel":
        service, _, database = path.partition("/")
        if not service:
            raise BadAddress(
                "A Sentinel URL names the service that it watches:"
                " redis+sentinel://host:26379/mymaster"
            )

    if kind == "cluster" and database not in ("", "0"):
        raise BadAddress("A Redis Cluster has no databases but 0")

    is_number = not database or (database.isascii() and database.isdecimal())
    if not is_number or int(database[:6] or 0) > MAX_DATABASE:
        raise BadAddress("A Redis URL ends in the number of a database, or in nothing")
    return unquote(service), int(database or 0)
