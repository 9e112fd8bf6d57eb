"""HTTP/1.1 as both servers speak it: uvicorn's h11 protocol, with the patience that it lacks.

Knows connections, bytes and ticks, nothing of routes. A client owes `SLOWEST` bytes a second
whenever the next move is its own (to send the rest of a request, or to read an answer) and may fall
behind by the read timeout. Time is counted in ticks, so that an event loop that was held up is not
held against the client. Invariant: no client holds a connection, or an answer's memory, by doing
nothing; and what is no HTTP gets the one error body.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import InvalidRequest
from service.observability.metrics import CONNECTION_LIMIT, CONNECTIONS
from service.observability.request_context import accept_request_id, timed_request
from service.web.asgi import BEYOND, common_headers, error_response, record_error
from service.web.connection_limit import ConnectionTable
from service.web.framing import Connection
from service.web.settings import ServerSettings

SLOWEST = 32 * 1024
"""Bytes a second below which a line is not slow but stuck."""
_TICKS = 4
"""Looks at a connection in one read timeout."""

_INT, _LONG = struct.Struct("i"), struct.Struct("Q")
_ACKNOWLEDGED_AT = 120
"""Where `tcpi_bytes_acked` stands in Linux's `struct tcp_info` (include/uapi/linux/tcp.h)."""
_NOT_AT_ALL = struct.pack("ii", 1, 0)
"""Linger no second: what is unsent when a connection is closed is thrown away."""


class SlowClientAllowance:
    """How far a client may still fall behind: used up by waiting for it, earned back by its
    bytes."""

    def __init__(self, seconds: float) -> None:
        self._full = self._left = seconds
        self.tick = seconds / _TICKS
        """Seconds between two looks."""

    def is_lost(self, *, waiting: bool, moved: int) -> bool:
        """Look: whether the client was waited for since the last look, and how many bytes moved.
        Once lost, it is full again."""
        self._left = (
            min(self._full, self._left - self.tick + moved / SLOWEST) if waiting else self._full
        )
        lost = self._left <= 0
        if lost:
            self._left = self._full
        return lost


class Http(H11Protocol):
    """One connection. h11, unlike httptools, bounds the header."""

    def __init__(self, *, serving: ServerSettings, table: ConnectionTable, **others: Any) -> None:
        super().__init__(**others)
        self.conn = Connection()
        self._table = table
        self._patience = SlowClientAllowance(serving.read_timeout_seconds)
        self._moved = self._unread = self._taken = 0
        self._behind = False
        self._silent = True
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._looking = self.loop.call_later(self._patience.tick, self._look)
        CONNECTIONS.inc()
        CONNECTION_LIMIT.set(self._table.limit)
        if self._table.enter(self):
            self.app_state = {**self.app_state, BEYOND: True}

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking:
            self._looking.cancel()
        self._table.leave(self)
        CONNECTIONS.dec()
        super().connection_lost(exc)

    def give_up(self) -> None:
        """Make room for another connection."""
        if self._unsent() or (self.cycle is not None and not self.cycle.response_complete):
            self.transport.abort()
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if (
            self.conn.their_state is h11.IDLE
            and not self.conn.trailing_data[0]
            and not self.transport.is_closing()
        ):
            self._table.idle(self)

    def data_received(self, data: bytes) -> None:
        self._silent = False
        self._table.busy(self)
        if not self._answered_early():  # the rest of a body that nobody wants earns no time
            self._moved += len(data)
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("The request is not valid HTTP."))

    def _look(self) -> None:
        """One tick: who is to move, and has it?"""
        unsent, acknowledged = self._unsent(), self._acknowledged()
        if acknowledged is None:
            taken = max(0, self._unread - unsent)
        else:
            taken = acknowledged - self._taken
            self._taken = acknowledged

        moved = self._moved + taken
        self._behind = self._unread > taken
        self._moved, self._unread = 0, unsent
        self._looking = self.loop.call_later(self._patience.tick, self._look)
        if self._patience.is_lost(waiting=self._is_clients_turn(), moved=moved):
            self._lose_patience()

    def _unsent(self) -> int:
        """Bytes of answers that the client's side has not taken: ours, and those that the system
        holds for us."""
        held = self.transport.get_write_buffer_size()
        with suppress(OSError), self._socket() as same:
            held += _INT.unpack(fcntl.ioctl(same.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))[0]
        return held

    def _acknowledged(self) -> int | None:
        """Bytes that the client's side has taken since the connection was made; None where the
        system does not tell."""
        try:
            with self._socket() as same:
                told = same.getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED_AT + _LONG.size
                )
        except (OSError, AttributeError):  # TCP_INFO is Linux's
            return None
        return (
            int(_LONG.unpack_from(told, _ACKNOWLEDGED_AT)[0])
            if len(told) >= _ACKNOWLEDGED_AT + _LONG.size
            else None
        )

    def _socket(self) -> socket.socket:
        """The connection's socket, once more, to be closed: uvloop's own has no options. Raises
        `OSError`."""
        connection = self.transport.get_extra_info("socket")
        if connection is None:
            raise OSError
        return socket.socket(fileno=os.dup(connection.fileno()))

    def _is_clients_turn(self) -> bool:
        if self._behind or self.transport.is_closing():
            return True
        if self.conn.their_state is h11.SEND_BODY:
            return not self.flow.read_paused
        return self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None

    def _answered_early(self) -> bool:
        return (
            self.cycle is not None
            and self.cycle.response_complete
            and self.conn.their_state is h11.SEND_BODY
        )

    def _lose_patience(self) -> None:
        """Say so where the client can still be told, and else break off."""
        if self._silent or self._behind or self.transport.is_closing():
            self._break_off()
        else:
            self._refuse(InvalidRequest("The request took too long to arrive."))

    def _break_off(self) -> None:
        """Close at once, and have the system forget what it still holds for the client."""
        with suppress(OSError), self._socket() as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOT_AT_ALL)
        self.transport.abort()

    def _refuse(self, error: InvalidRequest) -> None:
        """Answer below the app, and close; where an answer has begun, only close."""
        # whoever reads the body learns that no more will come
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        with timed_request(accept_request_id(None)) as record:
            record_error(error)
            answer = error_response(error)
            ours = [
                (name.encode(), value.encode()) for name, value in common_headers(record).items()
            ]
        head = h11.Response(
            status_code=error.status, headers=[*answer.raw_headers, *ours, CLOSE_HEADER]
        )
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
