"""Pictures that a worker keeps: within its bounds, by tenant, and as a gateway remembers them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from service.gateway.fleet.sent_pictures import SentPictures
from service.wire import ImageRule, Pixels, ScoreCall
from service.worker.picture_store import MAX_PICTURES, PictureStore
from tests.gateway.stand_in import INFO

RULE = ImageRule(28, 3136, 1_003_520)
SIZE = 100
"""Bytes of a picture's pixels here: the store counts bytes, whatever the sides."""


def pixels(number: int, *, sent: bool = True) -> Pixels:
    return Pixels(b"%d" % number, 28, 28, b"%d" % number * (SIZE // len(str(number))) * sent)


def call(*pictures: Pixels, salt: str = "") -> ScoreCall:
    documents: list[list[str | int]] = [[index] for index in range(len(pictures))]
    return ScoreCall("m", "find", ["q"], documents, list(pictures), truncate=True, cache_salt=salt)


def kept(store: PictureStore, numbers: Sequence[int], salt: str = "") -> list[int]:
    """Those of some pictures that the store adds to a call without pixels."""
    asked = call(*(pixels(number, sent=False) for number in numbers), salt=salt)
    with store.completed(asked) as completed:
        for index in completed.documents:
            assert completed.call.images[index].rgb == pixels(numbers[index]).rgb
        assert [document[0] for document in completed.call.documents] == list(completed.documents)
        return [numbers[index] for index in completed.documents]


def test_a_picture_is_kept_for_its_tenant_in_its_size() -> None:
    store = PictureStore(10 * SIZE)
    with store.completed(call(pixels(1), salt="a")):
        pass
    assert kept(store, [1], "a") == [1]
    assert kept(store, [1], "b") == kept(store, [1]) == kept(store, [2], "a") == []

    larger = structs.replace(pixels(1, sent=False), width=56)
    with store.completed(call(larger, salt="a")) as completed:
        assert completed.documents == []


def test_where_the_querys_picture_is_missing_no_document_can_be_scored() -> None:
    asked = structs.replace(
        call(pixels(1), pixels(2, sent=False)), query=[1, "like this"], documents=[["text"], [0]]
    )
    with PictureStore(10 * SIZE).completed(asked) as completed:
        assert completed.documents == []


def test_without_bytes_nothing_is_kept_and_the_store_has_no_name() -> None:
    store = PictureStore(0)
    with store.completed(call(pixels(1))) as completed:
        assert completed.call == call(pixels(1))
    assert (kept(store, [1]), store.name) == ([], "")
    assert PictureStore(1).name != PictureStore(1).name


def test_a_picture_that_is_in_use_is_not_dropped() -> None:
    store = PictureStore(3 * SIZE)
    with store.completed(call(pixels(1), pixels(2))):
        with store.completed(call(*map(pixels, range(3, 9)))):
            assert kept(store, [1, 2]) == [1, 2]
        assert kept(store, [1, 2]) == [1, 2]
    with store.completed(call(*map(pixels, range(3, 9)))):
        pass
    assert kept(store, [1, 2]) == []


CALLS = st.lists(
    st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True), st.booleans()),
    max_size=30,
)


@given(CALLS, st.integers(1, 8))
def test_pixels_are_always_the_pictures_own_and_within_the_bound(
    calls: list[tuple[list[int], bool]], room: int
) -> None:
    """Some calls end at once, others only after all the rest."""
    store = PictureStore(room * SIZE)
    with ExitStack() as unended:
        for numbers, ends in calls:
            with ExitStack() as own:
                kept(store, numbers)
                stack = own if ends else unended
                stack.enter_context(store.completed(call(*map(pixels, numbers))))
            assert len(kept(store, range(13))) <= room
    assert len(kept(store, range(13))) <= room


@given(CALLS, st.integers(4, 8))
def test_a_gateway_alone_remembers_what_its_worker_keeps(
    calls: list[tuple[list[int], bool]], room: int
) -> None:
    """None of its calls is refused for a picture, and most pictures travel once."""
    width = 28
    store = PictureStore(room * 3 * width * width)
    sent = SentPictures()
    info = structs.replace(INFO, picture_store=store.name, picture_store_bytes=store.max_bytes)
    sent.follow([info])
    for numbers, _ in calls:
        keys = [("", b"%d" % number, RULE) for number in numbers]
        known = [sent.size(key) is not None for key in keys]
        images = [
            Pixels(digest, width, width, bytes(3 * width * width) if not left_out else b"")
            for (_, digest, _), left_out in zip(keys, known, strict=True)
        ]
        with store.completed(call(*images)) as completed:
            assert len(completed.documents) == len(numbers)
        for key in keys:
            sent.add(key, (width, width))
            assert sent.size(key) == (width, width)


def test_what_is_remembered_ends_with_the_store() -> None:
    sent, key = SentPictures(), ("", b"1", RULE)
    sent.add(key, (28, 28))
    assert sent.size(key) is None

    first = structs.replace(INFO, picture_store="first", picture_store_bytes=2**20)
    for models in ([first], [INFO, first]):
        sent.follow(models)
        sent.add(key, (28, 28))
        assert sent.size(key) == (28, 28)

    sent.follow([structs.replace(first, picture_store="second")])
    assert sent.size(key) is None


@pytest.mark.parametrize("count", [MAX_PICTURES + 10])
def test_the_number_of_small_pictures_is_bounded(count: int) -> None:
    sent = SentPictures()
    sent.follow([structs.replace(INFO, picture_store="s", picture_store_bytes=2**40)])
    keys = [("", b"%d" % number, RULE) for number in range(count)]
    for key in keys:
        sent.add(key, (28, 28))
    assert sum(sent.size(key) is not None for key in keys) == MAX_PICTURES
