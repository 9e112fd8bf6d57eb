"""Hand-written HTTP, as attackers send it."""

from __future__ import annotations

import json
import re
import select
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

READ_SECONDS = 120
FLAT = {"code", "message", "detail", "request_id"}
_TELLTALE = re.compile(r"0x[0-9a-f]{6,}|/usr/|/work/|/tmp/|\.py\b|Traceback|Error:")


def dial(url: str, *, receive_buffer: int | None = None) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(READ_SECONDS)
    connection.connect((address.hostname, address.port))
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    try:
        while chunk := connection.recv(65_536):
            received += chunk
    except ConnectionError:
        pass
    return received


def send_raw(url: str, data: bytes) -> bytes:
    """Send the data as far as the server accepts it; returns everything received until the
    server closes."""
    with dial(url) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
        return read_to_end(connection)


def drip(connection: socket.socket, data: bytes, seconds: float = 0.05) -> bytes:
    """Send byte by byte with pauses until the server answers or closes; returns the answer."""
    for byte in data:
        if select.select([connection], [], [], seconds)[0]:
            break
        try:
            connection.send(bytes([byte]))
        except ConnectionError:
            break
    return read_to_end(connection)


def answer_of(received: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of an answer, checked for details of the machine."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), received[:200]
    assert not _TELLTALE.search(body.decode("utf-8")), body
    return int(head.split()[1]), json.loads(body) if body else {}


def is_flat(received: bytes, *statuses: int) -> None:
    """Check that the answer is a flat error with one of these statuses, and that nothing
    follows."""
    status, body = answer_of(received)
    assert status in statuses, received[:300]
    assert body.keys() - {"errors"} == FLAT, body
    assert body["detail"] == body["message"]
