"""Which connections a server keeps: no more than its files allow, and of those that do nothing the
oldest goes first.

Knows connections as things that can be closed, and the process's limit of open files, no HTTP.
Invariant: a new connection finds a place as long as another is idle; and however many are busy,
some more are accepted, on which health is answered.
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
"""Connections beyond the limit on which health is still answered."""
ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before any of them is looked at."""
_SAY_AGAIN_SECONDS = 60.0
_LEAST_FOR_OTHERS = 64
"""Files kept for calls to workers, Redis, and the process's own."""


class Closable(Protocol):
    """A connection."""

    def give_up(self) -> None: ...


class ConnectionTable:
    """All connections of a server."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[Closable, None] = {}
        self._idle: dict[Closable, None] = {}
        self._beyond: dict[Closable, None] = {}

    def enter(self, connection: Closable) -> bool:
        """Keep a new connection, and give up another where there are too many; gives whether it is
        beyond the limit."""
        if len(self._open) >= self.limit and self._idle:
            self._give_up(next(iter(self._idle)))
        if len(self._open) < self.limit:
            self._open[connection] = self._idle[connection] = None
            return False

        self._beyond[connection] = None
        if len(self._beyond) > SPARE:
            self._give_up(next(iter(self._beyond)))
        return True

    def leave(self, connection: Closable) -> None:
        """Forget a connection that is closed, or is being closed."""
        for each in (self._open, self._idle, self._beyond):
            each.pop(connection, None)

    def busy(self, connection: Closable) -> None:
        """A connection's client has said something."""
        self._idle.pop(connection, None)

    def idle(self, connection: Closable) -> None:
        """A connection's client has been answered, and has said nothing since."""
        if connection in self._open:
            self._idle[connection] = None

    def _give_up(self, connection: Closable) -> None:
        self.leave(connection)
        connection.give_up()


def fitting(wanted: int) -> int:
    """How many connections of those wanted the limit of open files allows, which is raised for them
    where that is allowed."""
    spare, accepted = SPARE, ACCEPTED_AT_ONCE
    _raise_limit(wanted + spare + accepted + 4 * _LEAST_FOR_OTHERS)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    others = min(max(_LEAST_FOR_OTHERS, files // 4), 4 * _LEAST_FOR_OTHERS)
    return max(1, min(wanted, files - spare - accepted - others))


def _raise_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class AcceptErrors:
    """Handles what goes wrong in an event loop as the loop does, but says once a while that no file
    is left."""

    def __init__(self) -> None:
        self._said = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failure = context.get("exception")
        if not (isinstance(failure, OSError) and failure.errno in (errno.EMFILE, errno.ENFILE)):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said > _SAY_AGAIN_SECONDS:
            self._said = time.monotonic()
            log("connections are not accepted: the process has no file left", logging.ERROR)


def tell_limit(wanted: int) -> int:
    """How many connections there may be; said, and as a warning where they are fewer than
    wanted."""
    limit = fitting(wanted)
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
