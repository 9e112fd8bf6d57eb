"""Connections that cost a server something without a request of their own: idle ones, and one whose
answer is not read.

Depends on sockets and on HTTP's first lines, on no server. Invariant: all sockets are closed at the
end.
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
"""Characters of each document that an unread answer repeats: all together more than the system
buffers for a connection."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A way to hold connections, by an address, a key and a size."""

    description: str
    hold: Callable[[str, str, int], None]


def _connect(url: str, stack: ExitStack) -> socket.socket:
    address = urlsplit(url)
    return stack.enter_context(
        socket.create_connection((address.hostname, address.port), timeout=HELD_SECONDS)
    )


def _idle(url: str, _key: str, size: int) -> None:
    """Open connections, begin a request on each, and send nothing more."""
    with ExitStack() as stack:
        for _ in range(size):
            with suppress(OSError):
                _connect(url, stack).sendall(b"POST /rerank HTTP/1.1\r\nhost: a\r\n")
        time.sleep(HELD_SECONDS)


def _unread(url: str, key: str, size: int) -> None:
    """Send a request whose answer repeats all documents, and do not read the answer."""
    body = json.dumps(
        {
            "query": "q",
            "documents": [f"{number} {'x' * ANSWER_CHARACTERS}" for number in range(size)],
            "return_documents": True,
            "truncate": "end",
        }
    ).encode()

    head = (
        "POST /rerank HTTP/1.1\r\n"
        "host: a\r\n"
        f"authorization: Bearer {key}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        "\r\n"
    )

    with ExitStack() as stack:
        connection = _connect(url, stack)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(head.encode() + body)
        time.sleep(HELD_SECONDS)


CONNECTIONS = {
    "idle": Holding("connections that begin a request and send nothing more", _idle),
    "unread": Holding("an answer that repeats all documents and is not read", _unread),
}
