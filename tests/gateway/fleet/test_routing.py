"""Routing: a stable order of workers, even loads, and splits only where they are faster."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from service.gateway.fleet.routing import (
    IMBALANCE,
    MIN_HOME_TOKENS,
    MIN_SHARE_TOKENS,
    SUFFIX_PER_PREFIX,
    balanced,
    hash_order,
    home_orders,
    idle_enough,
    placed_at_homes,
    sum_at_homes,
    within_bound,
    without_small_parts,
)
from service.gateway.fleet.workload import Homes, shares_at_homes

NAMES = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=12, unique=True)
KEYS = st.binary(max_size=64)
LOADS = st.lists(st.integers(0, 100_000), min_size=1, max_size=12)
COSTS = st.integers(1, 100_000)
HOME_KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40, unique=True)


def order(key: bytes, names: list[str]) -> list[str]:
    return [names[index] for index in hash_order(key, names)]


@given(KEYS, NAMES, st.data())
def test_without_one_worker_the_others_stand_as_they_stood(
    key: bytes, names: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(names))
    left = [name for name in names if name != gone]
    assert order(key, left) == [name for name in order(key, names) if name != gone]


@given(KEYS, NAMES, st.randoms())
def test_the_order_does_not_depend_on_who_was_named_first(
    key: bytes, names: list[str], rng: Random
) -> None:
    shuffled = list(names)
    rng.shuffle(shuffled)
    assert order(key, shuffled) == order(key, names)


def test_a_worker_that_leaves_moves_its_own_keys_alone_and_to_all_others() -> None:
    names = [f"http://worker-{number}" for number in range(5)]
    keys = [number.to_bytes(4, "big") for number in range(2_000)]
    before = {key: order(key, names)[0] for key in keys}
    after = {key: order(key, names[1:])[0] for key in keys}
    assert {key for key in keys if before[key] != after[key]} == {
        key for key in keys if before[key] == names[0]
    }
    assert all(300 < count < 500 for count in Counter(before.values()).values())
    heirs = Counter(after[key] for key in keys if before[key] == names[0])

    assert set(heirs) == set(names[1:])
    assert max(heirs.values()) < 2 * min(heirs.values())


@given(LOADS, COSTS)
def test_nobody_is_loaded_far_beyond_what_is_unavoidable(loads: list[int], cost: int) -> None:
    index = within_bound(loads, cost)
    unavoidable = max((sum(loads) + cost) / len(loads), min(loads) + cost)
    assert loads[index] + cost <= IMBALANCE * unavoidable
    assert all(load + cost > IMBALANCE * unavoidable for load in loads[:index])


@given(st.lists(st.tuples(KEYS, COSTS), max_size=60), st.integers(1, 6))
def test_no_stream_of_keys_overloads_a_worker(
    stream: list[tuple[bytes, int]], workers: int
) -> None:
    names, loads = [f"w{number}" for number in range(workers)], [0] * workers
    for key, cost in stream:
        places = hash_order(key, names)
        loads[places[within_bound([loads[index] for index in places], cost)]] += cost
        largest = max(cost for _, cost in stream)
        assert max(loads) <= IMBALANCE * (sum(loads) / workers + largest)


def test_equal_loads_leave_the_choice_to_the_hash_and_a_second_call_goes_elsewhere() -> None:
    assert within_bound([0, 0, 0], 100) == 0
    assert within_bound([5, 0, 0], 1_000) == 0
    assert within_bound([100, 0, 0], 100) == 1
    assert within_bound([100, 100, 100], 100) == 0
    assert within_bound([500, 400, 400], 10) == 0
    assert within_bound([600, 400, 400], 10) == 1


@given(LOADS, st.integers(0, 4_000), st.integers(0, 200_000))
def test_a_split_takes_idle_workers_and_shares_that_dwarf_the_prefix(
    loads: list[int], prefix: int, suffix: int
) -> None:
    places = idle_enough(loads, prefix, suffix)
    assert len(places) != 1
    if places:
        share = suffix // len(places)
        assert share >= max(SUFFIX_PER_PREFIX * prefix, MIN_SHARE_TOKENS)
        assert all(loads[index] <= (IMBALANCE - 1) * (prefix + share) for index in places)
        assert places == sorted(set(places))
        wasted = (len(places) - 1) * prefix / (prefix + suffix)

        assert wasted < 1 / SUFFIX_PER_PREFIX


def test_splits_by_example() -> None:
    assert idle_enough([0, 0], 300, 13_000) == [0, 1]
    assert idle_enough([0, 0, 0, 0], 300, 13_000) == [0, 1, 2, 3]
    assert idle_enough([0] * 20, 300, 13_000) == list(range(10))
    assert idle_enough([0, 0], 2_000, 13_000) == []
    assert idle_enough([0, 0], 10, 2 * MIN_SHARE_TOKENS - 1) == []
    assert idle_enough([9_000, 0, 0], 300, 13_000) == [1, 2]
    assert idle_enough([9_000, 0], 300, 13_000) == []
    assert idle_enough([0], 300, 13_000) == []
    assert idle_enough([0, 0], 2_000, 10, always=True) == [0, 1]


@given(st.lists(st.integers(1, 1_000), max_size=50), st.integers(1, 8))
def test_parts_are_whole_and_even(costs: list[int], count: int) -> None:
    parts = balanced(costs, count)
    assert sorted(chain(*parts)) == list(range(len(costs)))
    assert all(part == sorted(part) for part in parts)
    totals = [sum(map(costs.__getitem__, part)) for part in parts]

    assert len(totals) == count
    assert max(totals) - min(totals) <= max(costs, default=0)


# -- documents at home -----------------------------------------------------------------------------


def at_homes(keys: list[int], names: list[str], *, tokens: int = 10**9) -> dict[int, str]:
    """The worker of each document in an idle fleet; so many tokens keep each one at home."""
    homes = Homes(keys, [tokens] * len(keys))
    shares = shares_at_homes(homes, [100] * len(keys), names, [0] * len(names), "always")
    return {keys[index]: names[share.worker] for share in shares for index in share.documents}


@given(HOME_KEYS, NAMES, st.text(min_size=1, max_size=20))
def test_a_worker_that_comes_or_goes_moves_its_own_documents_alone(
    keys: list[int], names: list[str], other: str
) -> None:
    without = [name for name in names if name != other]
    if not without:
        return
    fewer, more = at_homes(keys, without), at_homes(keys, [other, *without])

    assert fewer.keys() == more.keys() == set(keys)
    assert all(more[key] in (other, fewer[key]) for key in keys)


def test_documents_spread_evenly_and_those_of_a_worker_that_goes_over_all_others() -> None:
    names, dice = [f"http://worker-{number}" for number in range(5)], Random(1)
    keys = [dice.getrandbits(64) for _ in range(2_000)]
    before, after = (home_orders(keys, which) for which in (names, names[1:]))
    assert all(300 < count < 500 for count in Counter(order[0] for order in before).values())

    heirs = Counter(left[0] for order, left in zip(before, after, strict=True) if order[0] == 0)
    assert set(heirs) == {0, 1, 2, 3}
    assert max(heirs.values()) < 2 * min(heirs.values())


@given(HOME_KEYS, NAMES, st.data())
def test_no_document_goes_where_the_load_is_far_beyond_what_is_unavoidable(
    keys: list[int], names: list[str], data: st.DataObject
) -> None:
    count = len(keys)
    loads = data.draw(st.lists(st.integers(0, 10_000), min_size=len(names), max_size=len(names)))
    costs, tokens = (
        data.draw(st.lists(st.integers(1, 2_000), min_size=count, max_size=count)) for _ in range(2)
    )
    parts = placed_at_homes(home_orders(keys, names), loads, costs, tokens, range(count))
    assert sorted(chain(*parts.values())) == list(range(count))

    mean = (sum(loads) + sum(costs)) / len(names)
    for worker, part in parts.items():
        load = loads[worker] + sum(costs[index] for index in part)
        least = min(loads) + sum(costs)
        assert load <= max(IMBALANCE * mean, IMBALANCE * least, least + max(tokens))


def test_a_document_leaves_its_home_only_for_more_than_it_costs_elsewhere() -> None:
    at_zero = [[0, 1], [0, 1]]
    assert placed_at_homes(at_zero, [0, 0], [100, 100], [100, 100], [0, 1]) == {0: [0, 1]}
    assert placed_at_homes(at_zero, [0, 0], [100, 100], [20, 20], [0, 1]) == {0: [0], 1: [1]}
    assert placed_at_homes(at_zero, [0, 0], [100, 100], [20, 20], [1, 0]) == {0: [1], 1: [0]}
    assert placed_at_homes(at_zero, [900, 0], [10, 10], [800, 950], [0, 1]) == {0: [1], 1: [0]}


def test_few_tokens_get_no_call_of_their_own_and_go_to_the_next_home_with_one() -> None:
    orders = [[0, 2, 1], [1, 0, 2], [2, 1, 0], [2, 0, 1]]
    tokens = [20, MIN_HOME_TOKENS, 100, 100]
    parts = {0: [0], 1: [1], 2: [2, 3]}
    assert without_small_parts(parts, orders, tokens, MIN_HOME_TOKENS) == {1: [1], 2: [0, 2, 3]}
    assert without_small_parts({0: [0]}, orders, tokens, MIN_HOME_TOKENS) == {0: [0]}
    assert without_small_parts(parts, orders, [1] * 4, MIN_HOME_TOKENS) == {2: [0, 1, 2, 3]}
    assert sum_at_homes(orders, tokens, 3) == [20, MIN_HOME_TOKENS, 200]
