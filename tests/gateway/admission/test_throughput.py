"""How fast work gets done, told from when requests come and go: exact where it can be, and never
lowered by idleness."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.admission.throughput import (
    LEAST_SECONDS,
    LONG_SECONDS,
    ThroughputEstimator,
    Ticket,
)


class Story:
    """A pace and its clock."""

    def __init__(self) -> None:
        self.pace = ThroughputEstimator()
        self.now = 100.0

    def come(self, cost: int) -> Ticket:
        stay = Ticket(cost)
        self.pace.enter(stay, self.now)
        return stay

    def go(self, stay: Ticket, computed: float | None = 1.0) -> None:
        stay.computed = computed
        self.pace.leave(stay, self.now)

    def one(
        self, cost: int, seconds: float, computed: float | None = 1.0, *, waiting: bool = False
    ) -> None:
        """One request alone."""
        stay = self.come(cost)
        if waiting:
            self.pace.mark_saturated()
        self.now += seconds
        self.go(stay, computed)


def test_nothing_is_known_before_something_is_done() -> None:
    story = Story()
    assert (story.pace.line, story.pace.work) == (None, None)
    story.one(100, LEAST_SECONDS / 2)
    assert story.pace.line is None, "too short to tell"
    story.one(100, LEAST_SECONDS)
    assert story.pace.line == pytest.approx(200 / (1.5 * LEAST_SECONDS))


def test_what_fails_or_is_broken_off_counts_for_nothing() -> None:
    story = Story()
    story.one(100, 10, computed=None)
    assert story.pace.line is None
    story.one(100, 1)
    assert story.pace.line == pytest.approx(100)
    story.one(1, 100, computed=None)
    assert story.pace.line == pytest.approx(100)


def test_what_was_known_counts_for_the_line_and_not_for_the_work() -> None:
    story = Story()
    story.one(100, 1, computed=0.25)
    assert (story.pace.line, story.pace.work) == pytest.approx((100, 25))


def test_idle_time_is_no_time() -> None:
    story = Story()
    story.one(100, 1)
    story.now += 1_000
    story.one(100, 1)
    assert story.pace.line == pytest.approx(100)


def test_little_to_do_does_not_lower_it_and_much_to_do_does() -> None:
    story = Story()
    story.one(1_000, LONG_SECONDS)
    story.one(10, LONG_SECONDS / 2)
    assert story.pace.line == pytest.approx(1_000)
    story.one(10, LONG_SECONDS / 2, waiting=True)
    assert story.pace.line is not None
    assert 10 < story.pace.line < 900
    before = story.pace.line
    story.one(10, 3 * LONG_SECONDS)
    assert story.pace.line < before


def test_more_done_raises_it_however_little_waits() -> None:
    story = Story()
    story.one(10, 1)
    story.one(1_000, 0.5)
    assert story.pace.line is not None
    assert 100 < story.pace.line < 2_000


def test_a_round_lasts_until_all_that_was_inside_is_out() -> None:
    """Two overlap: only when the longer is out is anything said, and then of both."""
    story = Story()
    long = story.come(1_000)
    for _ in range(5):
        story.one(10, 0.2)
        assert story.pace.line is None
    story.go(long)
    assert story.pace.line == pytest.approx(1_050)


@given(
    st.floats(10, 1e6),
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 4)), min_size=30, max_size=60),
)
def test_a_server_that_takes_turns_is_measured_exactly(
    rate: float, batches: list[tuple[int, int]]
) -> None:
    """A server that does `rate` a second, whatever comes together: the pace is the rate."""
    story = Story()
    for cost, together in batches:
        stays = [story.come(cost) for _ in range(together)]
        for stay in stays:
            story.now += cost / rate
            story.go(stay)
    assert story.pace.line is None or story.pace.line == pytest.approx(rate, rel=1e-6)
