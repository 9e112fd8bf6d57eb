"""Calls from bytes: what was sent, or refused before it takes memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest
from service.fields import MAX_ITEM_PARTS
from service.wire import MAX_CALL_DOCUMENTS, Pixels, ScoreCall
from service.worker.call_reading import MAX_PARTS, read_call

SIZE = 32 * 2**20
items = st.lists(st.text(max_size=10) | st.integers(0, 5), max_size=MAX_ITEM_PARTS)
calls = st.builds(
    ScoreCall,
    model=st.text(max_size=5),
    instruction=st.none() | st.text(max_size=5),
    query=items,
    documents=st.lists(items, max_size=5),
    images=st.lists(
        st.builds(Pixels, st.binary(), st.integers(0, 9), st.integers(0, 9), st.binary()),
        max_size=3,
    ),
    truncate=st.booleans(),
    cache_salt=st.text(max_size=5),
)


@given(calls)
def test_a_call_is_what_was_sent(call: ScoreCall) -> None:
    body = msgspec.msgpack.encode(call)
    assert read_call(body) == read_call(bytearray(body)) == call


def body_of(**fields: Any) -> bytes:
    """A call with some fields as they stand in bytes."""
    call = {
        "model": "m",
        "instruction": None,
        "query": ["q"],
        "documents": [["d"]],
        "images": [],
        "truncate": True,
    }
    return msgspec.msgpack.encode(
        call | {name: msgspec.Raw(value) for name, value in fields.items()}
    )


def listed(entry: bytes, count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + entry * count


BEYOND = {
    "empty documents": body_of(documents=listed(b"\x90", SIZE)),
    "one more document": body_of(documents=listed(b"\x91\xa1d", MAX_CALL_DOCUMENTS + 1)),
    "empty images": body_of(images=listed(b"\x94\xc4\x00\x00\x00\xc4\x00", SIZE // 7)),
    "a long document": body_of(documents=listed(listed(b"\xa0", SIZE), 1)),
    "a long query": body_of(query=listed(b"\xa2ab", SIZE // 3)),
    "many parts": body_of(documents=listed(listed(b"\xa2ab", MAX_ITEM_PARTS), MAX_CALL_DOCUMENTS)),
    "deep": body_of(documents=b"\x91" * 100_000 + b"\x90"),
    "an unknown field": body_of(more=b"\x91" * 100_000 + b"\x90"),
    "no call": listed(b"\x90", SIZE),
    "half a call": body_of()[:-1],
}


@pytest.mark.parametrize("shape", BEYOND)
def test_a_call_beyond_the_bounds_is_refused_before_it_takes_memory(shape: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            read_call(BEYOND[shape])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < SIZE


def test_as_many_parts_as_may_be_are_read() -> None:
    count = MAX_PARTS // MAX_ITEM_PARTS
    assert (
        len(read_call(body_of(documents=listed(listed(b"\xa1a", MAX_ITEM_PARTS), count))).documents)
        == count
    )
