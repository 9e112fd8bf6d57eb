"""Opens redis-py's client for an address, without the waits and retries that it has by default.

The module depends on redis-py's options, on no key and no score. Invariant: a client retries
nothing, keeps at most `connections` to a node, and its sockets time out after
`SOCKET_TIMEOUT_SECONDS`. A new connection sends AUTH and SELECT where they are needed and nothing
else, so its user needs these permissions alone (in a Cluster also `+cluster|slots +command
+asking`):

    ACL SETUSER gmr on >PASSWORD resetkeys ~gmr:* -@all +mget +set +select

and for stored images `+getrange +expire +unlink`.
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
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.gateway.cache.redis_url import RedisAddress
from service.observability.metric_types import follow
from service.observability.metrics import FILE_READABLE

SOCKET_TIMEOUT_SECONDS = 1.0
"""The time to connect, and to wait for a reply. Callers wait less: this ends the calls that they
have given up."""

MAX_PASSWORD_CHARACTERS = 4_096
"""Characters that are read of a password file."""

Client = Redis | RedisCluster

_FAILURE_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (MaxConnectionsError, "pool"),
    (AuthenticationError, "auth"),
    (AuthorizationError, "auth"),
    (NoPermissionError, "auth"),
    (OutOfMemoryError, "oom"),
    (ReadOnlyError, "readonly"),
    (RedisTimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (RedisConnectionError, "connection"),
    (ClusterDownError, "connection"),
    (RedisClusterException, "connection"),
    (OSError, "connection"),
)
"""Kinds by exception, the special ones before their base classes: several are connection errors."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files for TLS: the CA certificates that the server is verified with, and the client's
    certificate and key.

    None stands for the system's CA certificates, and for no client certificate.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class PasswordFile(CredentialProvider):
    """Reads a password from a file for each new connection.

    While the file is empty or cannot be read, the last password that it held is used.
    """

    def __init__(self, path: Path, username: str | None, password: str) -> None:
        self._path = path
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The arguments of AUTH."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            self._password = _read_password(self._path) or self._password
        return (self._username, self._password) if self._username else (self._password,)


def export_readability(tls: TlsFiles, password_file: Path | None = None) -> None:
    """Export a gauge for each file that is 1 while the file can be used.

    The gauge reads the file at each scrape, because each new connection will read it again.
    """
    if password_file:
        follow(
            FILE_READABLE.labels("redis_password"),
            lambda: _succeeds(lambda: _read_password(password_file)),
        )

    ca, certificate, key = tls.ca, tls.certificate, tls.key
    if ca:
        follow(
            FILE_READABLE.labels("redis_ca"),
            lambda: _succeeds(lambda: _new_context().load_verify_locations(ca)),
        )
    if certificate:
        follow(
            FILE_READABLE.labels("redis_certificate"),
            lambda: _succeeds(lambda: _new_context().load_cert_chain(certificate, key)),
        )


def open_client(
    address: RedisAddress,
    *,
    password: str | None = None,
    password_file: Path | None = None,
    sentinel_password: str | None = None,
    tls: TlsFiles | None = None,
    connections: int = 16,
) -> Client:
    """A client that connects when it is first used.

    `password` is used where the address has none. If it is from `password_file`, the file is read
    again for each new connection.
    """
    sockets = _socket_options(address, tls or TlsFiles())
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
            sentinel_options = sockets | {"password": sentinel_password}
            # each new connection requests the master's address from the Sentinels, in order
            sentinel = Sentinel(  # type: ignore[no-untyped-call]
                address.nodes, sentinel_kwargs=sentinel_options
            )
            master: Redis = sentinel.master_for(address.service, db=address.database, **options)
            return master
        case "single":
            return _single_server(address, options)


def failure_kind(error: BaseException) -> str:
    """The kind of a failure, one of a closed set."""
    for cause, kind in _FAILURE_KINDS:
        if isinstance(error, cause):
            return kind
    return "other"


def first_failure(replies: Sequence[object]) -> Exception | None:
    """The first error among the replies to a pipeline."""
    for reply in replies:
        if isinstance(reply, Exception):
            return reply
    return None


def _single_server(address: RedisAddress, options: dict[str, Any]) -> Redis:
    host, port = address.nodes[0]
    tls = options.pop("ssl")
    pool = BlockingConnectionPool(
        host=host,
        port=port,
        db=address.database,
        connection_class=SSLConnection if tls else Connection,
        timeout=SOCKET_TIMEOUT_SECONDS,
        **options,
    )
    return Redis(connection_pool=pool)


def _socket_options(address: RedisAddress, tls: TlsFiles) -> dict[str, Any]:
    """Options of every connection. With RESP3, redis-py would send HELLO and wait for maintenance
    notices, so it is RESP2."""
    options: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
        # a closed connection is noticed when it is taken; a health check would cost a round trip
        "health_check_interval": 0,
        "driver_info": None,  # no CLIENT SETINFO
        "ssl": address.tls,
    }
    if address.tls:
        options |= {
            "ssl_check_hostname": True,
            "ssl_ca_certs": tls.ca and str(tls.ca),
            "ssl_certfile": tls.certificate and str(tls.certificate),
            "ssl_keyfile": tls.key and str(tls.key),
        }
    return options


def _read_password(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(MAX_PASSWORD_CHARACTERS).strip()


def _new_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _succeeds(read: Callable[[], object]) -> bool:
    try:
        read()
    except (OSError, UnicodeDecodeError):  # ssl.SSLError is an OSError
        return False
    return True
