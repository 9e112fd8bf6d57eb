"""The bytes of stored images within their bound, whatever scopes do."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.gateway.images.byte_index import ByteIndex

BOUND = 100
SCOPES = (b"one", b"two", b"three")

added = st.tuples(st.sampled_from(SCOPES), st.integers(0, 12), st.integers(1, BOUND // 2))
used = st.tuples(st.integers(0, 12))


def name_of(scope: bytes, number: int) -> bytes:
    return b"%s %d" % (scope, number)


@given(st.lists(added | used, max_size=60))
def test_bytes_stay_within_the_bound_and_entries_go_in_order_of_use(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """A scope's entries go in the order of their last use, and the last one used stays."""
    index = ByteIndex(BOUND)
    order: list[tuple[bytes, bytes]] = []
    sizes: dict[bytes, int] = {}
    for step in steps:
        if len(step) == 1:
            name = name_of(SCOPES[0], step[0])
            assert index.use(name) == (name in sizes)
            order.sort(key=lambda entry, last=name: entry[1] == last)
            continue

        scope, number, size = step
        name = name_of(scope, number)
        order = [entry for entry in order if entry[1] != name] + [(scope, name)]
        sizes[name] = size
        gone = index.add(scope, name, size)

        assert name not in gone
        for lost in gone:
            of_scope = [entry for entry in order if entry[0] == dict_scope(order, lost)]
            assert of_scope[0][1] == lost
            order = [entry for entry in order if entry[1] != lost]
            del sizes[lost]
        assert index.total == sum(sizes.values()) <= BOUND
        assert all(known in index for known in sizes)


def dict_scope(order: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next(scope for scope, known in order if known == name)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=20), st.integers(30, 300))
def test_a_scope_with_more_than_half_takes_nothing_from_others(quiet: list[int], loud: int) -> None:
    index = ByteIndex(BOUND)
    kept = Counter[bytes]()
    for number, size in enumerate(quiet):
        for gone in index.add(b"quiet", name_of(b"quiet", number), size):
            kept.pop(gone)
        kept[name_of(b"quiet", number)] = size
    half = min(sum(kept.values()), BOUND // 2)

    for number in range(loud):
        index.add(b"loud", name_of(b"loud", number), 5)
    left = sum(size for name, size in kept.items() if name in index)
    assert left >= half - max(quiet)


def test_a_scope_alone_may_have_everything() -> None:
    index = ByteIndex(BOUND)
    for number in range(10):
        assert index.add(b"one", name_of(b"one", number), 10) == []
    assert index.total == BOUND

    # the next scope gets its room from the one that has more than half
    assert index.add(b"two", b"new", 10) == [name_of(b"one", 0)]
