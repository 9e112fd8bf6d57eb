"""The images that requests hold: a bound for all of them, and what is beyond it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageTooLarge, Overloaded
from service.gateway.images.in_use import SCOPE_SHARE, HeldImages, ImagesInUse
from service.gateway.images.keys import image_key, scope_id
from tests.metrics import metric_value

BOUND = 100
SIZE = 10
SCOPES = [scope_id(name) for name in ("one", "other")]


def in_use(images: ImagesInUse) -> int:
    images.release_ended()
    return images.total


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 14))))
def test_each_image_counts_once_and_the_bound_holds(steps: list[tuple[int, int, int]]) -> None:
    """Four requests of two scopes hold images or end, in any order."""
    images = ImagesInUse(BOUND)
    requests: dict[tuple[int, int], HeldImages] = {}
    held: dict[tuple[int, int], set[int]] = {}
    for request, scope, number in steps:
        identity = (request, scope)
        if number >= 12:
            requests.pop(identity, None)
            held.pop(identity, None)
        else:
            requests.setdefault(identity, HeldImages(images, SCOPES[scope]))
            with suppress(ImageTooLarge, Overloaded):
                requests[identity].hold(image_key(SCOPES[scope], bytes([number])), SIZE)
                held.setdefault(identity, set()).add(number)

        distinct = {(scope, image) for (_, scope), mine in held.items() for image in mine}
        assert in_use(images) == SIZE * len(distinct) <= BOUND
    requests.clear()
    assert in_use(images) == 0


def test_a_request_alone_may_use_everything_and_no_more() -> None:
    images = ImagesInUse(BOUND)
    alone = HeldImages(images, SCOPES[0])
    for number in range(BOUND // SIZE):
        alone.hold(image_key(SCOPES[0], bytes([number])), SIZE)
    with pytest.raises(ImageTooLarge):
        alone.hold(image_key(SCOPES[0], b"one more"), SIZE)

    before = metric_value("rerank_shed_total", reason="stored_images")
    with pytest.raises(Overloaded):
        HeldImages(images, SCOPES[1]).hold(image_key(SCOPES[1], b"other"), SIZE)
    assert metric_value("rerank_shed_total", reason="stored_images") == before + 1


def test_several_requests_of_a_scope_leave_room_for_others() -> None:
    images = ImagesInUse(BOUND)
    requests = [HeldImages(images, SCOPES[0]) for _ in range(BOUND // SIZE)]
    full = int(BOUND * SCOPE_SHARE) // SIZE
    for number, request in enumerate(requests[:full]):
        request.hold(image_key(SCOPES[0], bytes([number])), SIZE)
    with pytest.raises(Overloaded):
        requests[full].hold(image_key(SCOPES[0], b"one more"), SIZE)
    HeldImages(images, SCOPES[1]).hold(image_key(SCOPES[1], b"other"), SIZE)
