"""How patient the server is with slow clients, look by look."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.web.connection import MIN_BYTES_PER_SECOND, SlowClientAllowance

SECONDS = st.floats(0.1, 600)


@given(SECONDS, st.integers(0, 8))
def test_who_does_nothing_is_given_the_read_timeout_and_no_more(
    seconds: float, bytes_a_look: int
) -> None:
    """A byte now and then does not count."""
    allowance = SlowClientAllowance(seconds)
    looks = 1
    while not allowance.is_exhausted(waiting=True, moved=bytes_a_look):
        looks += 1
        assert looks * allowance.tick <= 1.5 * seconds
    assert looks * allowance.tick >= 0.99 * seconds


@given(SECONDS, st.floats(1, 1_000))
def test_who_keeps_up_with_a_slow_line_is_waited_for_without_end(
    seconds: float, times: float
) -> None:
    allowance = SlowClientAllowance(seconds)
    moved = int(MIN_BYTES_PER_SECOND * allowance.tick * times) + 1
    assert not any(allowance.is_exhausted(waiting=True, moved=moved) for _ in range(200))


@given(SECONDS)
def test_bytes_are_not_saved_up(seconds: float) -> None:
    allowance = SlowClientAllowance(seconds)
    assert not allowance.is_exhausted(waiting=True, moved=2**40)
    lost = [allowance.is_exhausted(waiting=True, moved=0) for _ in range(5)]
    assert any(lost)


@given(SECONDS, st.integers(1, 50))
def test_nobody_is_blamed_for_what_we_do(seconds: float, looks: int) -> None:
    allowance = SlowClientAllowance(seconds)
    assert not any(allowance.is_exhausted(waiting=False, moved=0) for _ in range(looks))
    assert not allowance.is_exhausted(waiting=True, moved=0)
