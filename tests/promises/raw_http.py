"""HTTP written by hand, as those write it who mean no good."""

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
    """All that comes until the server closes."""
    received = b""
    try:
        while chunk := connection.recv(65_536):
            received += chunk
    except ConnectionError:
        pass
    return received


def send_raw(url: str, data: bytes) -> bytes:
    """Send it all, as far as it is taken; gives all that comes until the server closes."""
    with dial(url) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
        return read_to_end(connection)


def drip(connection: socket.socket, data: bytes, seconds: float = 0.05) -> bytes:
    """Send byte by byte with pauses until the server says or ends something; gives what it said."""
    for byte in data:
        if select.select([connection], [], [], seconds)[0]:
            break
        try:
            connection.send(bytes([byte]))
        except ConnectionError:
            break
    return read_to_end(connection)


def answer_of(received: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of an answer, which tells nothing of the machine."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), received[:200]
    assert not _TELLTALE.search(body.decode("utf-8")), body
    return int(head.split()[1]), json.loads(body) if body else {}


def is_flat(received: bytes, *statuses: int) -> None:
    """The answer is a flat error of one of these statuses, and the last one."""
    status, body = answer_of(received)
    assert status in statuses, received[:300]
    assert body.keys() - {"errors"} == FLAT, body
    assert body["detail"] == body["message"]
