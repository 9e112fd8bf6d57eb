"""Splits answers into pieces, so that the server buffers only a piece for a slow client.

Depends on ASGI messages alone. Invariant: the pieces, joined in order, are the message.
"""

from __future__ import annotations

from collections.abc import Iterator

from starlette.types import Message

PIECE_BYTES = 2**18
"""Bytes in one piece: the server buffers a piece until the client has read it."""


def in_pieces(message: Message) -> Iterator[Message]:
    """Split a message with a long body into several; other messages are passed on."""
    body = message.get("body", b"")
    if len(body) <= PIECE_BYTES:
        yield message
        return

    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        end = start + PIECE_BYTES
        more = end < len(body) or message.get("more_body", False)
        yield {"type": message["type"], "body": bytes(view[start:end]), "more_body": more}
