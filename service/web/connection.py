"""One HTTP/1.1 connection: uvicorn's h11 protocol, with limits for slow clients.

Depends on connections, bytes and ticks, not on routes. While the server waits for a client (for the
rest of a request, or for an answer to be read), the client has to move `MIN_BYTES_PER_SECOND`, and
may fall behind by the read timeout. Time is counted in ticks of the event loop: a blocked loop is
not held against clients. Invariant: a client that does nothing cannot keep a connection or the
memory of an answer; and what is not HTTP is answered with the flat error body.

While an app answers a body that it still reads (`full_duplex`), the app sets the pace: the server
waits for the client only where the app says that it does.
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
from service.web.asgi import OVER_CONNECTION_LIMIT, common_headers
from service.web.connection_limit import ConnectionTable
from service.web.error_response import error_response, record_error
from service.web.framing import MIN_MEAN_CHUNK_BYTES, MIN_MEAN_DUPLEX_CHUNK_BYTES, Connection
from service.web.full_duplex import CONNECTION
from service.web.settings import ServerSettings

MIN_BYTES_PER_SECOND = 32 * 1024
"""The rate below which a client falls behind."""
_TICKS_PER_TIMEOUT = 4

_INT, _LONG = struct.Struct("i"), struct.Struct("Q")
_CLOSE, _CLOSE_WAIT = 7, 8
"""States of a TCP connection that the client has reset or closed (include/net/tcp_states.h)."""
_BYTES_ACKED_OFFSET = 120
"""The offset of `tcpi_bytes_acked` in Linux's `struct tcp_info` (include/uapi/linux/tcp.h)."""
_NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 seconds: closing the connection discards unsent data."""


class SlowClientAllowance:
    """Seconds that a client may still fall behind: waiting for it uses them up, its bytes earn them
    back."""

    def __init__(self, seconds: float) -> None:
        self._full = self._left = seconds
        self.tick = seconds / _TICKS_PER_TIMEOUT
        """Seconds between two calls of `is_exhausted`."""

    def is_exhausted(self, *, waiting: bool, moved: int) -> bool:
        """Account for one tick, and return whether the allowance is used up; then it is full again.

        `waiting` tells whether the server waited for the client; `moved` is the number of bytes
        that the client sent or read.
        """
        if not waiting:
            self._left = self._full
            return False

        earned = moved / MIN_BYTES_PER_SECOND
        self._left = min(self._full, self._left - self.tick + earned)
        if self._left > 0:
            return False
        self._left = self._full
        return True


class HttpConnection(H11Protocol):
    """A connection of a client. h11, unlike httptools, limits the size of a request's header."""

    def __init__(self, *, settings: ServerSettings, table: ConnectionTable, **options: Any) -> None:
        super().__init__(**options)
        self.conn: Connection = Connection()
        self._table = table
        self._allowance = SlowClientAllowance(settings.read_timeout_seconds)
        self._received = 0
        """Bytes received since the last tick."""
        self._unsent = 0
        """Bytes of answers that the client had not read at the last tick."""
        self._acknowledged = 0
        """Bytes that the client's system had acknowledged at the last tick."""
        self._is_behind = False
        self._is_silent = True
        self._is_duplex = False
        self._answers_wait = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._allowance.tick, self._tick)
        self.app_state = {**self.app_state, CONNECTION: self}
        CONNECTIONS.inc()
        CONNECTION_LIMIT.set(self._table.limit)
        if self._table.add(self):
            self.app_state = {**self.app_state, OVER_CONNECTION_LIMIT: True}

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._table.remove(self)
        CONNECTIONS.dec()
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close the connection to make room for another."""
        if self._unsent_bytes() or (self.cycle is not None and not self.cycle.response_complete):
            self.transport.abort()
        else:
            self.transport.close()

    def begin_duplex(self) -> None:
        """Let the app set the pace of the request that is in progress, until it is answered."""
        self._is_duplex, self._answers_wait = True, False
        self.conn.min_mean_chunk_bytes = MIN_MEAN_DUPLEX_CHUNK_BYTES

    def end_duplex(self) -> None:
        """Let the limits for slow clients hold again: what is left is the client's to read."""
        self._is_duplex = False

    def set_answers_wait(self, wait: bool) -> None:
        """Set whether answers wait for the client to read, so that no more of the body is read."""
        self._answers_wait = wait

    def is_lost(self) -> bool:
        """True once the connection is closed, or is being closed."""
        return self.transport.is_closing()

    def on_response_complete(self) -> None:
        self._is_duplex = self._answers_wait = False
        self.conn.min_mean_chunk_bytes = MIN_MEAN_CHUNK_BYTES
        super().on_response_complete()
        if (
            self.conn.their_state is h11.IDLE
            and not self.conn.trailing_data[0]
            and not self.transport.is_closing()
        ):
            self._table.mark_idle(self)

    def data_received(self, data: bytes) -> None:
        self._is_silent = False
        self._table.mark_busy(self)
        # the rest of a body that was answered already earns no time
        if not self._is_answered_early():
            self._received += len(data)
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("The request is not valid HTTP."))

    def _tick(self) -> None:
        """Account for the client's progress since the last tick, and disconnect a slow client."""
        unsent, acknowledged = self._unsent_bytes(), self._acknowledged_bytes()
        if acknowledged is None:
            read = max(0, self._unsent - unsent)
        else:
            read = acknowledged - self._acknowledged
            self._acknowledged = acknowledged

        moved = self._received + read
        self._is_behind = self._unsent > read
        self._received, self._unsent = 0, unsent

        self._timer = self.loop.call_later(self._allowance.tick, self._tick)
        if self._is_duplex and self._is_closed_by_client():
            self._abort()  # where the body is not read, nothing else tells
            return
        if self._allowance.is_exhausted(waiting=self._is_waiting_for_client(), moved=moved):
            self._disconnect_slow_client()

    def _unsent_bytes(self) -> int:
        """Bytes of answers that the client has not read, in the transport's buffer and in the
        socket's."""
        unsent = self.transport.get_write_buffer_size()
        with suppress(OSError), self._duplicate_socket() as same:
            queued = fcntl.ioctl(same.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
            unsent += _INT.unpack(queued)[0]
        return unsent

    def _acknowledged_bytes(self) -> int | None:
        """Bytes that the client's system has acknowledged since the connection was made; None where
        the operating system does not report it."""
        info = self._tcp_info()
        if len(info) < _BYTES_ACKED_OFFSET + _LONG.size:
            return None
        return int(_LONG.unpack_from(info, _BYTES_ACKED_OFFSET)[0])

    def _is_closed_by_client(self) -> bool:
        return self._tcp_info()[:1] in (bytes([_CLOSE]), bytes([_CLOSE_WAIT]))

    def _tcp_info(self) -> bytes:
        """Linux's `struct tcp_info` of the connection; empty on other systems."""
        try:
            with self._duplicate_socket() as same:
                return same.getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED_OFFSET + _LONG.size
                )
        except (OSError, AttributeError):  # TCP_INFO is Linux's
            return b""

    def _duplicate_socket(self) -> socket.socket:
        """A duplicate of the connection's socket, for the caller to close: uvloop's own has no
        options. Raises `OSError`."""
        connection = self.transport.get_extra_info("socket")
        if connection is None:
            raise OSError
        return socket.socket(fileno=os.dup(connection.fileno()))

    def _is_waiting_for_client(self) -> bool:
        if self._is_duplex and self.conn.their_state is h11.SEND_BODY:
            return self._answers_wait or self.transport.is_closing()
        if self._is_behind or self.transport.is_closing():
            return True
        if self.conn.their_state is h11.SEND_BODY:
            return not self.flow.read_paused
        return self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None

    def _is_answered_early(self) -> bool:
        return (
            self.cycle is not None
            and self.cycle.response_complete
            and self.conn.their_state is h11.SEND_BODY
        )

    def _disconnect_slow_client(self) -> None:
        """Answer with an error if the client can still read one, else close the connection."""
        if self._is_silent or self._is_behind or self.transport.is_closing():
            self._abort()
        else:
            self._refuse(InvalidRequest("The request took too long to arrive."))

    def _abort(self) -> None:
        """Close at once, and discard what the socket still holds for the client."""
        with suppress(OSError), self._duplicate_socket() as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _refuse(self, error: InvalidRequest) -> None:
        """Answer in place of the app, and close; if an answer has begun, only close."""
        # the app, if it reads the body, sees that the client is gone
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return

        with timed_request(accept_request_id(None)) as context:
            record_error(error)
            answer = error_response(error)
            headers = [*answer.raw_headers]
            for name, value in common_headers(context).items():
                headers.append((name.encode(), value.encode()))
        head = h11.Response(status_code=error.status, headers=[*headers, CLOSE_HEADER])
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
