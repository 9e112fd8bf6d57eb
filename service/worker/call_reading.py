"""A gateway's call from bytes, within bounds on what it becomes in memory.

Knows MessagePack and the shape of a call, no engine. Invariant: lists are counted before their
entries are built, and an item's parts before the next item's.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from service.errors import InvalidRequest
from service.fields import MAX_ITEM_PARTS
from service.wire import (
    MAX_CALL_DOCUMENTS,
    MAX_CALL_IMAGES,
    UNREADABLE,
    Pixels,
    ScoreCall,
    WireItem,
)

MAX_PARTS = 250_000
"""Texts and images that a call's documents name, all together."""

_Item = Annotated[WireItem, msgspec.Meta(max_length=MAX_ITEM_PARTS)]


class _Outline(msgspec.Struct):
    """A `ScoreCall` whose documents are not built yet."""

    model: str
    instruction: str | None
    query: _Item
    documents: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_CALL_DOCUMENTS)]
    images: Annotated[list[Pixels], msgspec.Meta(max_length=MAX_CALL_IMAGES)]
    truncate: bool
    cache_salt: Annotated[str, msgspec.Meta(max_length=128)] = ""


_outline_of = msgspec.msgpack.Decoder(_Outline).decode
_item_of = msgspec.msgpack.Decoder(_Item).decode


def read_call(body: bytes | bytearray) -> ScoreCall:
    """The call; raises `InvalidRequest` where it is none, or beyond the bounds."""
    try:
        outline = _outline_of(body)
        documents: list[WireItem] = []
        parts = 0
        for raw in outline.documents:
            documents.append(_item_of(raw))
            parts += len(documents[-1])
            if parts > MAX_PARTS:
                raise InvalidRequest
    except UNREADABLE:
        raise InvalidRequest from None

    return ScoreCall(
        model=outline.model,
        instruction=outline.instruction,
        query=outline.query,
        documents=documents,
        images=outline.images,
        truncate=outline.truncate,
        cache_salt=outline.cache_salt,
    )
