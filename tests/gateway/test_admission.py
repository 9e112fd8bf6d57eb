"""Requests are let in whole, in order, and never more of them than the capacity holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Overloaded
from service.gateway.admission import Admission
from tests.gateway.stand_in import soon

CAPACITY = 10
LONG = 5
"""Seconds that nobody who is treated well has to wait."""


def gate(*, max_waiting: int = 1_000, max_wait_seconds: float = LONG) -> Admission:
    return Admission(capacity=CAPACITY, max_waiting=max_waiting, max_wait_seconds=max_wait_seconds)


class Visitor:
    """A task that goes in, stays until it is let go, and keeps a diary of all visitors."""

    def __init__(self, admission: Admission, cost: int, diary: list[Visitor], seconds: float = LONG) -> None:
        self.cost = cost
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(admission, diary, soon(seconds)))

    async def _visit(self, admission: Admission, diary: list[Visitor], until: float) -> None:
        async with admission.admit(self.cost, until):
            diary.append(self)
            await self.leave.wait()


Diary = list[Visitor]


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def is_empty(admission: Admission) -> bool:
    """Whether a request of the whole capacity gets in without waiting."""
    try:
        async with asyncio.timeout(0), admission.admit(CAPACITY, soon()):
            return True
    except TimeoutError:
        return False


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(1, 15), st.sampled_from([0, LONG])),
        st.tuples(st.sampled_from(["leave", "cancel", "leave and cancel", "wait"]), st.integers(0, 30), st.just(0)),
    ),
    max_size=60,
)


async def take_step(admission: Admission, visitors: list[Visitor], inside: list[Visitor], step: tuple[str, int, int]) -> None:
    what, number, seconds = step
    if what == "come":
        visitors.append(Visitor(admission, number, inside, seconds))
    elif what == "wait":
        await asyncio.sleep(0)
    elif visitors:
        chosen = visitors[number % len(visitors)]
        if "leave" in what:
            chosen.leave.set()
        if "cancel" in what:
            chosen.task.cancel()


@settings(max_examples=200, deadline=None)
@given(STEPS)
async def test_a_storm_never_exceeds_the_capacity_and_leaks_nothing(steps: list[tuple[str, int, int]]) -> None:
    admission = gate()
    visitors: list[Visitor] = []
    entered: list[Visitor] = []
    for step in steps:
        await take_step(admission, visitors, entered, step)
        inside = [visitor for visitor in entered if not visitor.task.done()]
        assert sum(visitor.cost for visitor in inside) <= CAPACITY or len(inside) == 1
    places = [visitors.index(visitor) for visitor in entered]
    assert places == sorted(places)
    for visitor in visitors:
        visitor.leave.set()
    outcomes = await asyncio.gather(*(visitor.task for visitor in visitors), return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, Overloaded | asyncio.CancelledError) for outcome in outcomes)
    assert await is_empty(admission)


async def test_who_came_first_goes_first_although_a_smaller_one_would_fit() -> None:
    admission, entered = gate(), Diary()
    first, large, small = (Visitor(admission, cost, entered) for cost in (6, 5, 4))
    await settle()
    assert entered == [first]
    first.leave.set()
    await settle()
    assert entered == [first, large, small]
    large.leave.set()
    small.leave.set()
    await asyncio.gather(large.task, small.task)


async def test_as_many_as_fit_are_let_in_at_once() -> None:
    admission, entered = gate(), Diary()
    first, *others = (Visitor(admission, cost, entered) for cost in (10, 4, 5, 2))
    await settle()
    first.leave.set()
    await settle()
    assert entered == [first, *others[:2]]
    for other in others:
        other.leave.set()
    await asyncio.gather(*(other.task for other in others))


async def test_one_that_is_larger_than_the_capacity_gets_in_alone() -> None:
    admission, entered = gate(), Diary()
    small, huge, after = (Visitor(admission, cost, entered) for cost in (1, 1_000_000, 1))
    await settle()
    assert entered == [small]
    small.leave.set()
    await settle()
    assert entered == [small, huge]
    huge.leave.set()
    await settle()
    assert entered == [small, huge, after]
    after.leave.set()
    await after.task
    assert await is_empty(admission)


async def test_a_full_line_turns_away_at_once() -> None:
    admission, entered = gate(max_waiting=2), Diary()
    inside, *waiting = (Visitor(admission, CAPACITY, entered) for _ in range(3))
    await settle()
    with pytest.raises(Overloaded):
        async with admission.admit(1, soon()):
            pass
    waiting[1].task.cancel()
    await settle()
    late = Visitor(admission, 1, entered)
    for visitor in (inside, *waiting, late):
        visitor.leave.set()
    await asyncio.gather(late.task, waiting[0].task)
    assert entered == [inside, waiting[0], late]


async def test_without_a_line_only_those_who_fit_get_in() -> None:
    admission = gate(max_waiting=0)
    async with admission.admit(6, soon()), admission.admit(4, soon()):
        with pytest.raises(Overloaded):
            async with admission.admit(1, soon()):
                pass
    assert await is_empty(admission)


@pytest.mark.parametrize(
    ("waits", "until"),
    [(gate(max_wait_seconds=0.01), soon), (gate(), lambda: soon(0.01))],
    ids=["longest wait", "own deadline"],
)
async def test_who_waited_too_long_is_turned_away(waits: Admission, until: Callable[[], float]) -> None:
    async with waits.admit(CAPACITY, soon()):
        with pytest.raises(Overloaded):
            async with waits.admit(1, until()):
                pass
    assert await is_empty(waits)


async def test_who_gave_up_at_the_head_makes_room_for_the_next() -> None:
    admission, entered = gate(), Diary()
    inside, head, small = (Visitor(admission, cost, entered) for cost in (6, 9, 4))
    await settle()
    assert entered == [inside]
    head.task.cancel()
    await settle()
    assert entered == [inside, small]
    for visitor in (inside, small):
        visitor.leave.set()
    await asyncio.gather(inside.task, small.task)
    assert await is_empty(admission)


async def test_who_is_cancelled_while_being_let_in_gives_the_place_back() -> None:
    admission, entered = gate(), Diary()
    inside, chosen, after = (Visitor(admission, CAPACITY, entered) for _ in range(3))
    await settle()
    inside.leave.set()
    while not inside.task.done():
        await asyncio.sleep(0)
    chosen.task.cancel()
    await settle()
    assert entered == [inside, after]
    after.leave.set()
    await after.task
    assert await is_empty(admission)


async def test_who_fails_inside_gives_the_place_back() -> None:
    admission = gate()
    with pytest.raises(KeyError):
        async with admission.admit(CAPACITY, soon()):
            raise KeyError
    assert await is_empty(admission)
