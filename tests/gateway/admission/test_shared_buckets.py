"""Buckets that processes share: like those of one process, whichever of them counts."""

from __future__ import annotations

import multiprocessing

from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.admission.buckets import ProcessBuckets
from service.gateway.admission.shared_buckets import SharedBuckets

steps = st.tuples(
    st.integers(0, 1),
    st.sampled_from("abc"),
    st.sampled_from(["charge", "refund", "enter", "leave"]),
    st.integers(1, 50),
    st.floats(0, 3),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(steps, max_size=40))
def test_two_processes_together_count_as_one(
    taken: list[tuple[int, str, str, int, float]],
) -> None:
    alone, shared, now = ProcessBuckets(), SharedBuckets(2, rows=64), 1_000.0
    inside: list[tuple[int, str]] = []
    for number, scope, step, pairs, seconds in taken:
        now += seconds
        shared.enter_as(number)
        if step == "charge":
            assert shared.charge(scope, pairs, 10, now) == alone.charge(scope, pairs, 10, now)
        elif step == "refund":
            shared.refund(scope, pairs)
            alone.refund(scope, pairs)
        elif step == "enter":
            entered = shared.enter(scope, 2)
            assert entered == alone.enter(scope, 2)
            inside += [(number, scope)] * entered
        elif (number, scope) in inside:
            inside.remove((number, scope))
            shared.leave(scope)
            alone.leave(scope)
        assert shared.level(scope, 10, now) == alone.level(scope, 10, now)


def test_requests_of_a_process_that_ended_are_forgotten_and_no_others() -> None:
    buckets = SharedBuckets(2)
    for number in (0, 1, 1):
        buckets.enter_as(number)
        assert buckets.enter("a", 3)
    assert not buckets.enter("a", 3)
    buckets.forget(1)
    assert [buckets.enter("a", 3) for _ in range(3)] == [True, True, False]


def test_a_full_table_keeps_debts_and_requests_in_flight() -> None:
    buckets = SharedBuckets(1, rows=16)
    buckets.charge("debtor", 100, 1, 0.0)
    buckets.enter("busy", 1)
    for number in range(1_000):
        buckets.charge(str(number), 1, 1, 0.0)
    assert buckets.level("debtor", 1, 0.0) == -98
    assert not buckets.enter("busy", 1)


def test_processes_at_once_lose_no_charge() -> None:
    buckets, context = SharedBuckets(4), multiprocessing.get_context("fork")

    def charge(number: int) -> None:
        buckets.enter_as(number)
        for _ in range(500):
            buckets.charge("a", 1, 1e6, 0.0)

    running = [context.Process(target=charge, args=(number,)) for number in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert buckets.level("a", 1e6, 0.0) == 2e6 - 2_000
