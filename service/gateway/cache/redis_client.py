"""Opens redis-py's client for an address, with all that would wait or try again behind our back
switched off.

Knows redis-py's options, no keys or scores. Invariant: a client tries nothing twice, keeps at most
`connections` to a node, and its sockets give up after `GIVE_UP_SECONDS`. On a new connection it
says AUTH and SELECT (where there is something to say) and nothing else, so this is all that its
user must be allowed (a Cluster's also `+cluster|slots +command +asking`):

    ACL SETUSER gmr on >PASSWORD resetkeys ~gmr:* -@all +mget +set +select
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
)
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as TookTooLong

from service.gateway.cache.redis_url import RedisAddress
from service.observability.metrics import FILE_READABLE

GIVE_UP_SECONDS = 1.0
"""When a socket gives up connecting or reading. Callers wait for less: this ends what they no
longer wait for."""

MAX_PASSWORD_CHARACTERS = 4_096
"""Of a password's file."""

Client = Redis | RedisCluster

_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (MaxConnectionsError, "pool"),
    (AuthenticationError, "auth"),
    (AuthorizationError, "auth"),
    (NoPermissionError, "auth"),
    (OutOfMemoryError, "oom"),
    (ReadOnlyError, "readonly"),
    (TookTooLong, "timeout"),
    (TimeoutError, "timeout"),
    (NoConnection, "connection"),
    (ClusterDownError, "connection"),
    (RedisClusterException, "connection"),
    (OSError, "connection"),
)
"""The first that an error is an instance of names it: several are kinds of connection error."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files for TLS: who the server must be, and who we are. None: the system's authorities; nobody
    in particular."""

    authority: Path | None = None
    own: Path | None = None
    own_key: Path | None = None


class PasswordFile(CredentialProvider):
    """The password that a file holds when a connection is opened.

    While the file cannot be read, it is the last one that it held.
    """

    def __init__(self, path: Path, username: str | None, password: str) -> None:
        self._path = path
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What AUTH says."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            self._password = _password_in(self._path) or self._password
        return (self._username, self._password) if self._username else (self._password,)


def _password_in(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(MAX_PASSWORD_CHARACTERS).strip()


def watch(certificates: Certificates, password_file: Path | None = None) -> None:
    """Have the metrics say whether the files can be used as they are now: each new connection reads
    them again."""
    if password_file:
        FILE_READABLE.labels("redis_password").set_function(
            lambda: _succeeds(lambda: _password_in(password_file))
        )
    ca, own, key = certificates.authority, certificates.own, certificates.own_key
    if ca:
        FILE_READABLE.labels("redis_ca").set_function(
            lambda: _succeeds(lambda: _context().load_verify_locations(ca))
        )
    if own:
        FILE_READABLE.labels("redis_certificate").set_function(
            lambda: _succeeds(lambda: _context().load_cert_chain(own, key))
        )


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _succeeds(read: Callable[[], object]) -> bool:
    try:
        read()
    except (OSError, UnicodeDecodeError):  # ssl's errors are of the first kind
        return False
    return True


def open_client(
    address: RedisAddress,
    *,
    password: str | None = None,
    password_file: Path | None = None,
    sentinel_password: str | None = None,
    certificates: Certificates | None = None,
    connections: int = 16,
) -> Client:
    """A client that connects when it is first used.

    `password` is used where the address has none; if it is from `password_file`, each new
    connection reads that again.
    """
    sockets = _sockets(address, certificates or Certificates())
    options = sockets | {"max_connections": connections}
    if password_file and password and not address.password:
        options["credential_provider"] = PasswordFile(password_file, address.username, password)
    else:
        options |= {"username": address.username, "password": address.password or password}
    match address.kind:
        case "cluster":
            nodes = [ClusterNode(host, port) for host, port in address.nodes]
            return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
        case "sentinel":
            # One Sentinel after the other is asked, each new connection, who the master is.
            keys = sockets | {"password": sentinel_password}
            watchers = Sentinel(address.nodes, sentinel_kwargs=keys)  # type: ignore[no-untyped-call]
            master: Redis = watchers.master_for(address.service, db=address.database, **options)
            return master
        case "single":
            (host, port), tls = address.nodes[0], options.pop("ssl")
            kind = SSLConnection if tls else Connection
            return Redis(
                connection_pool=BlockingConnectionPool(
                    host=host,
                    port=port,
                    db=address.database,
                    connection_class=kind,
                    timeout=GIVE_UP_SECONDS,
                    **options,
                )
            )


def failure_kind(error: BaseException) -> str:
    """What went wrong, by a word of a closed set."""
    return next((kind for cause, kind in _FAILURES if isinstance(error, cause)), "other")


def first_failure(replies: Sequence[object]) -> Exception | None:
    """The first error among the replies to a pipeline."""
    return next((reply for reply in replies if isinstance(reply, Exception)), None)


def _sockets(address: RedisAddress, certificates: Certificates) -> dict[str, Any]:
    """What all connections have in common. RESP2: with RESP3 redis-py says HELLO and listens for
    maintenance notices."""
    plain: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": GIVE_UP_SECONDS,
        "socket_connect_timeout": GIVE_UP_SECONDS,
        # a connection is looked at when it is taken: a check would cost a round trip
        "health_check_interval": 0,
        "driver_info": None,  # no CLIENT SETINFO
        "ssl": address.tls,
    }
    if not address.tls:
        return plain
    return plain | {
        "ssl_check_hostname": True,
        "ssl_ca_certs": certificates.authority and str(certificates.authority),
        "ssl_certfile": certificates.own and str(certificates.own),
        "ssl_keyfile": certificates.own_key and str(certificates.own_key),
    }
