"""An answer that is sent while the request's body is still read.

Depends on the connection as something that can be told about it. The connection's limits for slow
clients assume that a body is read before it is answered; an app that answers earlier sets the pace
itself. Invariant: without a connection, as in tests within a process, nothing changes.
"""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

CONNECTION = "connection"
"""The key in a request's state of its connection."""


class DuplexConnection(Protocol):
    """A connection whose app sets the pace."""

    def begin_duplex(self) -> None: ...
    def end_duplex(self) -> None: ...
    def set_answers_wait(self, wait: bool) -> None: ...
    def is_lost(self) -> bool: ...


class _NoConnection:
    def begin_duplex(self) -> None:
        """There is no limit to lift."""

    def end_duplex(self) -> None:
        """There was none."""

    def set_answers_wait(self, wait: bool) -> None:
        """There is no client that is slow."""

    def is_lost(self) -> bool:
        return False


def connection_of(request: Request) -> DuplexConnection:
    """The connection that a request arrived on."""
    connection: DuplexConnection = request.scope.get("state", {}).get(CONNECTION, _NoConnection())
    return connection
