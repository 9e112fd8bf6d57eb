"""How patient the server is with slow clients, look by look."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.web.connection import SLOWEST, SlowClientAllowance

SECONDS = st.floats(0.1, 600)


@given(SECONDS, st.integers(0, 8))
def test_who_does_nothing_is_given_the_read_timeout_and_no_more(
    seconds: float, bytes_a_look: int
) -> None:
    """A byte now and then does not count."""
    patience = SlowClientAllowance(seconds)
    looks = 1
    while not patience.is_lost(waiting=True, moved=bytes_a_look):
        looks += 1
        assert looks * patience.tick <= 1.5 * seconds
    assert looks * patience.tick >= 0.99 * seconds


@given(SECONDS, st.floats(1, 1_000))
def test_who_keeps_up_with_a_slow_line_is_waited_for_without_end(
    seconds: float, times: float
) -> None:
    patience = SlowClientAllowance(seconds)
    moved = int(SLOWEST * patience.tick * times) + 1
    assert not any(patience.is_lost(waiting=True, moved=moved) for _ in range(200))


@given(SECONDS)
def test_bytes_are_not_saved_up(seconds: float) -> None:
    patience = SlowClientAllowance(seconds)
    assert not patience.is_lost(waiting=True, moved=2**40)
    lost = [patience.is_lost(waiting=True, moved=0) for _ in range(5)]
    assert any(lost)


@given(SECONDS, st.integers(1, 50))
def test_nobody_is_blamed_for_what_we_do(seconds: float, looks: int) -> None:
    patience = SlowClientAllowance(seconds)
    assert not any(patience.is_lost(waiting=False, moved=0) for _ in range(looks))
    assert not patience.is_lost(waiting=True, moved=0)
