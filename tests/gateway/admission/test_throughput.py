"""Throughput, estimated from the times of arrivals and ends: exact where it can be, and never
lowered by idleness."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.admission.throughput import (
    MIN_SAMPLE_SECONDS,
    SATURATED_SECONDS,
    ThroughputEstimator,
    Ticket,
)


class Story:
    """An estimator and its clock."""

    def __init__(self) -> None:
        self.throughput = ThroughputEstimator()
        self.now = 100.0

    def come(self, cost: int) -> Ticket:
        ticket = Ticket(cost)
        self.throughput.enter(ticket, self.now)
        return ticket

    def go(self, ticket: Ticket, computed: float | None = 1.0) -> None:
        ticket.computed = computed
        self.throughput.leave(ticket, self.now)

    def one(
        self, cost: int, seconds: float, computed: float | None = 1.0, *, waiting: bool = False
    ) -> None:
        """A request that is alone inside."""
        ticket = self.come(cost)
        if waiting:
            self.throughput.mark_saturated()
        self.now += seconds
        self.go(ticket, computed)


def test_nothing_is_known_before_something_is_done() -> None:
    story = Story()
    assert (story.throughput.admitted_rate, story.throughput.computed_rate) == (None, None)
    story.one(100, MIN_SAMPLE_SECONDS / 2)
    assert story.throughput.admitted_rate is None, "too short to tell"
    story.one(100, MIN_SAMPLE_SECONDS)

    assert story.throughput.admitted_rate == pytest.approx(200 / (1.5 * MIN_SAMPLE_SECONDS))


def test_what_fails_or_is_broken_off_counts_for_nothing() -> None:
    story = Story()
    story.one(100, 10, computed=None)
    assert story.throughput.admitted_rate is None
    story.one(100, 1)
    assert story.throughput.admitted_rate == pytest.approx(100)
    story.one(1, 100, computed=None)

    assert story.throughput.admitted_rate == pytest.approx(100)


def test_what_was_known_counts_for_the_line_and_not_for_the_work() -> None:
    story = Story()
    story.one(100, 1, computed=0.25)
    assert (story.throughput.admitted_rate, story.throughput.computed_rate) == pytest.approx(
        (100, 25)
    )


def test_idle_time_is_no_time() -> None:
    story = Story()
    story.one(100, 1)
    story.now += 1_000
    story.one(100, 1)

    assert story.throughput.admitted_rate == pytest.approx(100)


def test_little_to_do_does_not_lower_it_and_much_to_do_does() -> None:
    story = Story()
    story.one(1_000, SATURATED_SECONDS)
    story.one(10, SATURATED_SECONDS / 2)
    assert story.throughput.admitted_rate == pytest.approx(1_000)
    story.one(10, SATURATED_SECONDS / 2, waiting=True)
    assert story.throughput.admitted_rate is not None
    assert 10 < story.throughput.admitted_rate < 900
    before = story.throughput.admitted_rate
    story.one(10, 3 * SATURATED_SECONDS)

    assert story.throughput.admitted_rate < before


def test_more_done_raises_it_however_little_waits() -> None:
    story = Story()
    story.one(10, 1)
    story.one(1_000, 0.5)
    assert story.throughput.admitted_rate is not None
    assert 100 < story.throughput.admitted_rate < 2_000


def test_a_round_lasts_until_all_that_was_inside_is_out() -> None:
    """Two requests overlap: the estimate changes only when the longer one ends, and then covers
    both."""
    story = Story()
    long = story.come(1_000)
    for _ in range(5):
        story.one(10, 0.2)
        assert story.throughput.admitted_rate is None
    story.go(long)

    assert story.throughput.admitted_rate == pytest.approx(1_050)


@given(
    st.floats(10, 1e6),
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 4)), min_size=30, max_size=60),
)
def test_a_server_that_takes_turns_is_measured_exactly(
    rate: float, batches: list[tuple[int, int]]
) -> None:
    """A server that does `rate` units per second, however many requests come together: the estimate
    is that rate."""
    story = Story()
    for cost, together in batches:
        tickets = [story.come(cost) for _ in range(together)]
        for ticket in tickets:
            story.now += cost / rate
            story.go(ticket)
    assert (
        story.throughput.admitted_rate is None
        or story.throughput.admitted_rate == pytest.approx(rate, rel=1e-6)
    )
