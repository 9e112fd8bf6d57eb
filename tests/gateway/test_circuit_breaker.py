"""A breaker lets through what may work and no more; a budget never gives more than it was given."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.circuit_breaker import Breaker, RetryBudget

FAILURES = 3
SECONDS = 10.0


class Clock:
    """A clock that is moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=FAILURES, seconds=SECONDS, clock=clock)


def attempt(breaker: Breaker, succeeded: bool | None) -> bool:
    """One attempt, if it is let through."""
    entered = breaker.enter()
    if entered:
        breaker.leave(succeeded)
    return entered


def opened(breaker: Breaker) -> Breaker:
    for _ in range(FAILURES):
        assert attempt(breaker, False)
    return breaker


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        assert attempt(breaker, False)
        assert breaker.state == "closed"
    attempt(breaker, False)
    assert breaker.state == "open"
    assert not breaker.would_admit()
    assert not breaker.enter()


@pytest.mark.parametrize("between", [True, None])
def test_only_failures_in_a_row_count(breaker: Breaker, between: bool | None) -> None:
    for _ in range(FAILURES - 1):
        attempt(breaker, False)
    attempt(breaker, between)
    attempt(breaker, False)

    # what was learnt nothing from changes nothing
    assert breaker.state == ("closed" if between else "open")


def test_after_its_time_one_probe_decides(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += SECONDS - 0.001
    assert not breaker.enter()
    clock.now += 0.001
    assert breaker.state == "half_open"
    assert breaker.would_admit()
    assert breaker.enter()
    assert breaker.state == "half_open"
    assert not breaker.would_admit()
    assert not breaker.enter()
    breaker.leave(True)

    assert breaker.state == "closed"
    assert breaker.enter()
    assert breaker.enter()


def test_a_probe_that_fails_opens_it_again_for_as_long(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += SECONDS
    assert attempt(breaker, False)
    assert breaker.state == "open"
    clock.now += SECONDS - 0.001
    assert not breaker.enter()
    clock.now += 0.001

    assert breaker.enter()


def test_a_probe_that_learns_nothing_leaves_it_to_the_next(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += SECONDS
    assert attempt(breaker, None)
    assert breaker.state == "half_open"
    assert attempt(breaker, True)
    assert breaker.state == "closed"


def test_once_closed_it_takes_as_many_failures_as_ever(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += SECONDS
    attempt(breaker, True)
    opened(breaker)

    assert breaker.state == "open"


def test_an_attempt_from_before_that_succeeds_closes_it(breaker: Breaker) -> None:
    assert breaker.enter()
    opened(breaker)
    breaker.leave(True)
    assert breaker.state == "closed"


STEPS = st.lists(st.sampled_from(["enter", "good", "bad", "nothing", "wait"]), max_size=60)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_it_admits_again_once_its_time_is_over_whatever_has_happened(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(failures=FAILURES, seconds=SECONDS, clock=clock)
    under_way = 0
    for step in steps:
        if step == "wait":
            clock.now += SECONDS / 2
        elif step == "enter":
            would = breaker.would_admit()
            assert breaker.enter() == would
            under_way += would
        elif under_way:
            under_way -= 1
            breaker.leave({"good": True, "bad": False, "nothing": None}[step])
    for _ in range(under_way):
        breaker.leave(None)
    clock.now += SECONDS

    assert breaker.would_admit()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.booleans(), max_size=300),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.sampled_from([1.0, 10.0]),
)
def test_retries_never_exceed_their_share_and_the_reserve(
    calls: list[bool], share: float, reserve: float
) -> None:
    budget = RetryBudget(share=share, reserve=reserve)
    retries = 0
    for number, fails in enumerate(calls, start=1):
        budget.earn()
        retries += fails and budget.spend()
        assert retries <= reserve + share * number + 1e-9


def test_what_is_not_spent_is_kept_up_to_the_reserve() -> None:
    budget = RetryBudget(share=0.5, reserve=3)
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    budget.earn()
    assert not budget.spend()
    budget.earn()

    assert budget.spend()
