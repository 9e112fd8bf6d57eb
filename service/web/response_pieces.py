"""Answers handed to the server in pieces, so that each waits until the client has taken those
before it.

Knows ASGI messages alone. Invariant: the pieces are the message, in order.
"""

from __future__ import annotations

from collections.abc import Iterator

from starlette.types import Message

PIECE_BYTES = 2**18
"""Bytes that the server is given at once: it keeps what a client has not taken."""


def in_pieces(message: Message) -> Iterator[Message]:
    """A message as several, where it is a long part of an answer's body."""
    body = message.get("body", b"")
    if len(body) <= PIECE_BYTES:
        yield message
        return
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        end = start + PIECE_BYTES
        more = end < len(body) or message.get("more_body", False)
        yield {"type": message["type"], "body": bytes(view[start:end]), "more_body": more}
