"""The chunks of a share: every document is in one of them, and none is larger than it may be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.chunks import FIRST_CHUNK_BYTES, Chunks, pictures_in, pixels_in
from service.gateway.costs import pixel_bytes
from service.gateway.domain import Documents
from service.gateway.media.content import Content, Picture, Text
from tests.gateway.stand_in import INFO

SENT = partial(pixel_bytes, rule=INFO.images)
MAX_BYTES = 4 * FIRST_CHUNK_BYTES
SIDE = 784
"""Sides of an image that is not resized: 1.8 MB of pixels, so that one fits the first chunk."""
TEXT: Content = (Text("t"),)


def shown(number: int) -> Content:
    """A content of one picture; equal numbers are equal pictures."""
    data = b"%d" % number
    return (Picture(data, hashlib.sha256(data).digest(), (), (SIDE, SIDE)),)


def documents_of(*contents: Content) -> dict[bytes, Content]:
    return {b"%d" % index: content for index, content in enumerate(contents)}


def taken(documents: Documents, *, cost: int = 1, max_cost: int = 1_000) -> list[list[str]]:
    """The keys of each chunk, where every document costs the same."""
    costs = dict.fromkeys(documents, cost)
    chunks = all_of(Chunks(documents, costs, MAX_BYTES), max_cost)
    return [list(map(bytes.decode, chunk)) for chunk in chunks]


def all_of(chunks: Chunks, max_cost: int) -> Iterator[Documents]:
    while chunk := chunks.take(max_cost, SENT):
        yield chunk


def test_texts_and_images_that_fit_one_chunk_are_one_in_their_order() -> None:
    assert taken(documents_of(TEXT, shown(1), TEXT)) == [["0", "1", "2"]]


def test_equal_images_count_once() -> None:
    assert taken(documents_of(TEXT, shown(1), shown(1))) == [["0", "1", "2"]]


def test_texts_come_first_where_the_pixels_do_not_fit() -> None:
    assert taken(documents_of(shown(1), TEXT, shown(2), TEXT)) == [["1", "3"], ["0"], ["2"]]


@pytest.mark.parametrize(
    ("max_cost", "chunks"),
    [(3, [["0", "1", "2"]]), (2, [["0", "1"], ["2"]]), (1, [["0"], ["1"], ["2"]])],
)
def test_they_are_apart_where_the_cost_does_not_fit(max_cost: int, chunks: list[list[str]]) -> None:
    assert taken(documents_of(TEXT, TEXT, shown(1)), max_cost=max_cost) == chunks


def test_the_texts_that_are_left_ride_with_the_images() -> None:
    assert taken(documents_of(TEXT, TEXT, TEXT, shown(1)), max_cost=2) == [["0", "1"], ["2", "3"]]


CONTENTS = st.lists(st.one_of(st.just(TEXT), st.integers(0, 5).map(shown)), max_size=30)


@given(CONTENTS, st.lists(st.integers(1, 50), min_size=30, max_size=30), st.integers(1, 200))
def test_every_document_is_in_one_chunk_and_each_chunk_within_its_bounds(
    contents: list[Content], each_cost: list[int], max_cost: int
) -> None:
    documents = documents_of(*contents)
    costs = dict(zip(documents, each_cost, strict=False))
    chunks = list(all_of(Chunks(documents, costs, MAX_BYTES), max_cost))

    assert sorted(chain(*chunks)) == sorted(documents)
    allowed = FIRST_CHUNK_BYTES
    for chunk in chunks:
        assert len(chunk) == 1 or sum(costs[key] for key in chunk) <= max_cost
        assert len(chunk) == 1 or pixels_in(chunk, SENT) <= allowed
        if any(pictures_in(*chunk.values())):
            allowed = min(2 * allowed, MAX_BYTES)
