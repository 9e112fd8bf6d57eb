"""The allowance of slow clients, tick by tick."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.web.connection import MIN_BYTES_PER_SECOND, SlowClientAllowance

SECONDS = st.floats(0.1, 600)


@given(SECONDS, st.integers(0, 8))
def test_an_idle_client_gets_the_read_timeout_and_no_more(
    seconds: float, bytes_per_tick: int
) -> None:
    """A byte now and then does not count."""
    allowance = SlowClientAllowance(seconds)
    ticks = 1
    while not allowance.is_exhausted(waiting=True, moved=bytes_per_tick):
        ticks += 1
        assert ticks * allowance.tick <= 1.5 * seconds
    assert ticks * allowance.tick >= 0.99 * seconds


@given(SECONDS, st.floats(1, 1_000))
def test_a_client_at_the_minimum_rate_is_never_disconnected(seconds: float, factor: float) -> None:
    allowance = SlowClientAllowance(seconds)
    moved = int(MIN_BYTES_PER_SECOND * allowance.tick * factor) + 1
    assert not any(allowance.is_exhausted(waiting=True, moved=moved) for _ in range(200))


@given(SECONDS)
def test_bytes_earn_no_more_than_the_full_allowance(seconds: float) -> None:
    allowance = SlowClientAllowance(seconds)
    assert not allowance.is_exhausted(waiting=True, moved=2**40)
    assert any(allowance.is_exhausted(waiting=True, moved=0) for _ in range(5))


@given(SECONDS, st.integers(1, 50))
def test_time_in_which_the_server_works_does_not_count(seconds: float, ticks: int) -> None:
    allowance = SlowClientAllowance(seconds)
    assert not any(allowance.is_exhausted(waiting=False, moved=0) for _ in range(ticks))
    assert not allowance.is_exhausted(waiting=True, moved=0)
