"""Limits the number of open connections; the connection that has been idle longest is closed first.

Depends on connections as things that can be closed, and on the process's limit of open files, not
on HTTP. Invariant: a new connection is accepted as long as another is idle; and however many are
busy, a few more are accepted, on which the health routes are answered.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import resource
import time
from typing import Any, Protocol

from service.observability.logs import log
from service.observability.metrics import CONNECTION_LIMIT

SPARE = 64
"""Connections over the limit on which the health routes are still answered."""
ACCEPTED_AT_ONCE = 64
"""Connections that the server accepts before it handles any of them."""
_LOG_INTERVAL_SECONDS = 60.0
_MIN_OTHER_FILES = 64
"""Open files kept for calls to workers, for Redis, and for the process itself."""


class Closable(Protocol):
    """A connection."""

    def evict(self) -> None: ...


class ConnectionTable:
    """The open connections of a server: those within the limit, and those over it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[Closable, None] = {}
        self._idle: dict[Closable, None] = {}
        self._over_limit: dict[Closable, None] = {}

    def add(self, connection: Closable) -> bool:
        """Add a new connection, and evict an idle one if there are too many.

        Returns whether the new connection is over the limit.
        """
        if len(self._open) >= self.limit and self._idle:
            self._evict(next(iter(self._idle)))
        if len(self._open) < self.limit:
            self._open[connection] = self._idle[connection] = None
            return False

        self._over_limit[connection] = None
        if len(self._over_limit) > SPARE:
            self._evict(next(iter(self._over_limit)))
        return True

    def remove(self, connection: Closable) -> None:
        """Remove a connection that is closed, or is being closed."""
        self._open.pop(connection, None)
        self._idle.pop(connection, None)
        self._over_limit.pop(connection, None)

    def mark_busy(self, connection: Closable) -> None:
        """Mark a connection as busy: data arrived on it."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Closable) -> None:
        """Mark a connection as idle: its request was answered, and no other has begun."""
        if connection in self._open:
            self._idle[connection] = None

    def _evict(self, connection: Closable) -> None:
        self.remove(connection)
        connection.evict()


def fit_to_open_files(wanted: int) -> int:
    """The number of connections, at most `wanted`, that the limit of open files allows.

    The soft limit is raised first, as far as the hard limit allows.
    """
    spare, accepted = SPARE, ACCEPTED_AT_ONCE
    _raise_file_limit(wanted + spare + accepted + 4 * _MIN_OTHER_FILES)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted

    other_files = min(max(_MIN_OTHER_FILES, files // 4), 4 * _MIN_OTHER_FILES)
    return max(1, min(wanted, files - spare - accepted - other_files))


def _raise_file_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return

    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


class AcceptErrors:
    """An exception handler for an event loop, which logs at intervals that no file is left; other
    errors go to the loop's default handler."""

    def __init__(self) -> None:
        self._logged_at = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failure = context.get("exception")
        if not (isinstance(failure, OSError) and failure.errno in (errno.EMFILE, errno.ENFILE)):
            loop.default_exception_handler(context)
            return

        now = time.monotonic()
        if now - self._logged_at > _LOG_INTERVAL_SECONDS:
            self._logged_at = now
            log("connections are not accepted: the process has no file left", logging.ERROR)


def apply_connection_limit(wanted: int) -> int:
    """The limit of connections, logged and shown in the metrics; a warning is logged if it is below
    `wanted`."""
    limit = fit_to_open_files(wanted)
    CONNECTION_LIMIT.set(limit)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < wanted:
        message = (
            "fewer connections than RERANK_MAX_CONNECTIONS: the limit of open files is too low"
        )
        log(message, logging.WARNING, connections=limit, wanted=wanted, files=files)
    else:
        log("connections", connections=limit, files=files)
    return limit
