"""A gateway's call, read from bytes within bounds on the memory that it becomes, and checked.

Depends on MessagePack and the shape of a call, on no engine. Invariant: lists are counted before
their entries are built, and an item's parts before the next item's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import msgspec

from service.errors import InvalidRequest
from service.fields import MAX_ITEM_PARTS
from service.wire import (
    MAX_CALL_DOCUMENTS,
    MAX_CALL_IMAGES,
    UNREADABLE,
    ImageRule,
    Pixels,
    ScoreCall,
    WireItem,
)

MAX_PARTS = 250_000
"""Texts and images of all of a call's documents together."""

_Item = Annotated[WireItem, msgspec.Meta(max_length=MAX_ITEM_PARTS)]


class _UnreadCall(msgspec.Struct):
    """A `ScoreCall` whose documents are still bytes."""

    model: str
    instruction: str | None
    query: _Item
    documents: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_CALL_DOCUMENTS)]
    images: Annotated[list[Pixels], msgspec.Meta(max_length=MAX_CALL_IMAGES)]
    truncate: bool
    cache_salt: Annotated[str, msgspec.Meta(max_length=128)] = ""


_decode_call = msgspec.msgpack.Decoder(_UnreadCall).decode
_decode_item = msgspec.msgpack.Decoder(_Item).decode


def read_call(body: bytes | bytearray) -> ScoreCall:
    """The call; raises `InvalidRequest` where it is none, or beyond the bounds."""
    try:
        call = _decode_call(body)
        documents = _read_documents(call.documents)
    except UNREADABLE:
        raise InvalidRequest from None

    return ScoreCall(
        model=call.model,
        instruction=call.instruction,
        query=call.query,
        documents=documents,
        images=call.images,
        truncate=call.truncate,
        cache_salt=call.cache_salt,
    )


def expect_images(call: ScoreCall, rule: ImageRule | None) -> None:
    """Raise `InvalidRequest` unless every image that an item names is in the call, and every image
    has sides that the model reads, and all of its bytes or none. A model of text (no rule) reads
    none."""
    for item in (call.query, *call.documents):
        for part in item:
            if isinstance(part, int) and not 0 <= part < len(call.images):
                raise InvalidRequest

    for image in call.images:
        if rule is None or not _is_readable(image, rule.cell):
            raise InvalidRequest


def _read_documents(encoded: Collection[msgspec.Raw]) -> list[WireItem]:
    documents: list[WireItem] = []
    parts = 0
    for document in encoded:
        documents.append(_decode_item(document))
        parts += len(documents[-1])
        if parts > MAX_PARTS:
            raise InvalidRequest
    return documents


def _is_readable(image: Pixels, cell: int) -> bool:
    if min(image.width, image.height) <= 0 or image.width % cell or image.height % cell:
        return False
    return len(image.rgb) in {0, 3 * image.width * image.height}
