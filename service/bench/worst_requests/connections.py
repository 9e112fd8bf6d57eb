"""Connections that cost a server something without asking for much: idle ones, and one whose answer
is not read.

The module knows sockets and HTTP's first lines, no server. Invariant: all sockets are closed when
it is over.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

HELD_SECONDS = 10.0
ANSWER_CHARACTERS = 3_000
"""Of each document that an unread answer repeats: more, all together, than the system keeps for a
connection."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What is done with connections, by an address, a key and a size; it gives the status that was
    seen, or 0."""

    says: str
    hold: Callable[[str, str, int], int]


def _connected(url: str, stack: ExitStack) -> socket.socket:
    address = urlsplit(url)
    return stack.enter_context(
        socket.create_connection((address.hostname, address.port), timeout=HELD_SECONDS)
    )


def _idle(url: str, key: str, size: int) -> int:
    """As many connections as the size that have begun a request and say no more."""
    with ExitStack() as stack:
        for _ in range(size):
            with suppress(OSError):
                _connected(url, stack).sendall(b"POST /rerank HTTP/1.1\r\nhost: a\r\n")
        time.sleep(HELD_SECONDS)
    return 0


def _unread(url: str, key: str, size: int) -> int:
    """A request whose answer repeats all documents, and is not read."""
    documents = [f"{number} {'x' * ANSWER_CHARACTERS}" for number in range(size)]
    body = json.dumps(
        {"query": "q", "documents": documents, "return_documents": True, "truncate": "end"}
    ).encode()
    head = (
        f"POST /rerank HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-type:"
        " application/json\r\n"
    )
    with ExitStack() as stack:
        connection = _connected(url, stack)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        time.sleep(HELD_SECONDS)
    return 0


CONNECTIONS = {
    "idle": Holding("connections that begin a request and say no more", _idle),
    "unread": Holding("an answer that repeats all documents and is not read", _unread),
}
