"""The admission queue: order within a scope, fairness between scopes, capacity, and nothing left
behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DeadlineExceeded, Overloaded
from service.gateway.admission.queue import AdmissionQueue
from service.gateway.admission.refusal import MAX_RETRY_AFTER
from tests.gateway.stand_in import soon
from tests.gateway.virtual_time import in_virtual_time
from tests.metrics import metric_value

CAPACITY = 10
LONG = 5
"""Seconds that no request waits as long as it is treated right."""


def gate(*, max_waiting: int = 1_000, max_wait_seconds: float = LONG) -> AdmissionQueue:
    return AdmissionQueue(
        capacity=CAPACITY, max_waiting=max_waiting, max_wait_seconds=max_wait_seconds
    )


class Visitor:
    """A task that is admitted, stays until `leave` is set, and records itself in a diary."""

    def __init__(
        self,
        admission: AdmissionQueue,
        cost: int,
        diary: list[Visitor],
        scope: str = "",
        seconds: float = LONG,
    ) -> None:
        self.cost, self.scope = cost, scope
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(admission, diary, soon(seconds)))

    async def _visit(self, admission: AdmissionQueue, diary: list[Visitor], until: float) -> None:
        async with admission.admit(self.cost, until, self.scope):
            diary.append(self)
            await self.leave.wait()


Diary = list[Visitor]


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def let_go(*visitors: Visitor) -> None:
    for visitor in visitors:
        visitor.leave.set()
    await asyncio.gather(*(visitor.task for visitor in visitors))


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("come"),
            st.integers(1, 15),
            st.sampled_from("abc"),
            st.sampled_from([0, 0.001, LONG]),
        ),
        st.tuples(
            st.sampled_from(["leave", "cancel", "leave and cancel", "wait"]),
            st.integers(0, 30),
            st.just(""),
            st.just(0),
        ),
    ),
    max_size=60,
)


async def take_step(
    admission: AdmissionQueue,
    visitors: list[Visitor],
    inside: list[Visitor],
    step: tuple[str, int, str, float],
) -> None:
    what, number, scope, seconds = step
    if what == "come":
        visitors.append(Visitor(admission, number, inside, scope, seconds))
    elif what == "wait":
        await asyncio.sleep(0)
    elif visitors:
        chosen = visitors[number % len(visitors)]
        if "leave" in what:
            chosen.leave.set()
        if "cancel" in what:
            chosen.task.cancel()


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from([2, 5, 1_000]))
async def test_a_storm_never_exceeds_the_capacity_and_leaks_nothing(
    steps: list[tuple[str, int, str, float]], max_waiting: int
) -> None:
    admission = gate(max_waiting=max_waiting)
    visitors: list[Visitor] = []
    entered: list[Visitor] = []
    for step in steps:
        await take_step(admission, visitors, entered, step)
        inside = [visitor for visitor in entered if not visitor.task.done()]
        costs = sorted(visitor.cost for visitor in inside)
        # all but the one that came last, and that is not larger than the largest
        assert sum(costs[:-1]) < CAPACITY
        assert admission.waiting <= max_waiting
    for visitor in visitors:
        visitor.leave.set()
    outcomes = await asyncio.gather(*(visitor.task for visitor in visitors), return_exceptions=True)

    assert all(
        o is None or isinstance(o, Overloaded | DeadlineExceeded | asyncio.CancelledError)
        for o in outcomes
    )
    assert admission.is_empty()


async def test_who_came_first_goes_first_although_a_smaller_one_would_do() -> None:
    admission, entered = gate(), Diary()
    first, large, small = (Visitor(admission, cost, entered) for cost in (10, 50, 1))
    await settle()
    assert entered == [first]
    first.leave.set()
    await settle()
    assert entered == [first, large]
    large.leave.set()
    await settle()
    assert entered == [first, large, small]
    await let_go(small)

    assert admission.is_empty()


async def test_the_door_is_open_while_less_than_the_capacity_is_inside() -> None:
    admission, entered = gate(), Diary()
    visitors = [Visitor(admission, cost, entered) for cost in (4, 5, 7, 1)]
    await settle()
    assert entered == visitors[:3]
    visitors[0].leave.set()
    await settle()
    assert entered == visitors[:3]
    visitors[1].leave.set()
    await settle()
    assert entered == visitors
    await let_go(*visitors)

    assert admission.is_empty()


async def test_the_scope_that_got_least_goes_first() -> None:
    """By cost: one large request of one is worth many small ones of another."""
    admission, entered = gate(), Diary()
    (inside,) = [Visitor(admission, CAPACITY, entered)]
    await settle()
    many = [Visitor(admission, 20, entered, "many") for _ in range(3)]
    few = [Visitor(admission, 10, entered, "few") for _ in range(4)]
    await let_go(inside)
    for turn in range(1, len(many) + len(few) + 1):
        await settle()
        assert len(entered) == turn + 1
        entered[-1].leave.set()

    assert "".join(visitor.scope[0] for visitor in entered[1:]) == "mffmffm"
    assert [visitor for visitor in entered if visitor.scope == "many"] == many
    assert [visitor for visitor in entered if visitor.scope == "few"] == few


async def test_a_full_line_turns_away_at_once() -> None:
    admission, entered = gate(max_waiting=2), Diary()
    inside, *waiting = (Visitor(admission, CAPACITY, entered) for _ in range(3))
    await settle()
    for ask in (
        lambda: admission.admit(1, soon()).__aenter__(),
        lambda: asyncio.sleep(0, admission.expect_room()),
    ):
        with pytest.raises(Overloaded) as refusal:
            await ask()
        assert refusal.value.retry_after is not None
        assert 1 <= refusal.value.retry_after <= MAX_RETRY_AFTER
    waiting[1].task.cancel()
    await settle()
    admission.expect_room()
    late = Visitor(admission, 1, entered)
    await let_go(inside, waiting[0], late)

    assert entered == [inside, waiting[0], late]
    assert admission.is_empty()


async def test_a_full_line_makes_room_for_who_has_less_of_it() -> None:
    admission, entered = gate(max_waiting=4), Diary()
    inside, *loud = (Visitor(admission, CAPACITY, entered, "loud") for _ in range(5))
    await settle()
    with pytest.raises(Overloaded):
        admission.expect_room("loud")
    admission.expect_room("quiet")
    quiet = [Visitor(admission, 1, entered, "quiet") for _ in range(2)]
    await settle()
    assert all(isinstance(visitor.task.exception(), Overloaded) for visitor in loud[2:])
    with pytest.raises(Overloaded):
        admission.expect_room("quiet")
    await let_go(inside, *loud[:2], *quiet)

    assert admission.is_empty()


async def test_without_a_line_only_those_who_fit_get_in() -> None:
    admission = gate(max_waiting=0)
    async with admission.admit(6, soon()), admission.admit(4, soon()):
        with pytest.raises(Overloaded):
            async with admission.admit(1, soon()):
                pass
    assert admission.is_empty()


async def test_large_ones_are_always_let_in_up_to_a_number() -> None:
    admission, entered = (
        AdmissionQueue(capacity=None, max_waiting=9, max_wait_seconds=LONG, min_turns=lambda: 2),
        Diary(),
    )
    visitors = [Visitor(admission, 10**9, entered) for _ in range(3)]
    await settle()
    assert entered == visitors[:2]
    await let_go(*visitors)

    assert admission.is_empty()


@pytest.mark.parametrize(
    ("waits", "until", "error", "reason"),
    [
        (gate(max_wait_seconds=0.01), soon, Overloaded, "queue_timeout"),
        (gate(), lambda: soon(0.01), DeadlineExceeded, "deadline"),
    ],
    ids=["longest wait", "own deadline"],
)
async def test_who_waited_too_long_is_turned_away(
    waits: AdmissionQueue, until: Callable[[], float], error: type[Exception], reason: str
) -> None:
    before = metric_value("rerank_shed_total", reason=reason)
    async with waits.admit(CAPACITY, soon()):
        with pytest.raises(error):
            async with waits.admit(1, until()):
                pass
    assert metric_value("rerank_shed_total", reason=reason) == before + 1
    assert waits.is_empty()


async def test_who_comes_after_its_deadline_is_not_let_in_although_there_is_room() -> None:
    with pytest.raises(DeadlineExceeded):
        async with gate().admit(1, soon(0)):
            pass


def test_who_would_wait_too_long_is_told_so_at_once() -> None:
    """Once the throughput is known: one request per second, here."""

    async def story() -> None:
        admission = AdmissionQueue(capacity=CAPACITY, max_waiting=99, max_wait_seconds=5)
        now = asyncio.get_running_loop().time

        async def visit(patience: float = 60) -> float:
            came = now()
            async with admission.admit(CAPACITY, came + patience) as admitted:
                waited = now() - came
                await asyncio.sleep(1)
                admitted.computed = 1
            return waited

        await visit()
        visits = []
        for _ in range(5):
            visits.append(asyncio.create_task(visit()))
            await asyncio.sleep(0)
        admission.expect_room()
        came = now()
        with pytest.raises(Overloaded) as refusal:
            await visit(patience=3)
        assert refusal.value.retry_after is not None
        assert 3 <= refusal.value.retry_after <= 9
        visits += [asyncio.create_task(visit()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            admission.expect_room()
        with pytest.raises(Overloaded):
            await visit()
        assert now() == came
        assert [await each for each in visits[:5]] == pytest.approx([0, 1, 2, 3, 4])
        await asyncio.gather(*visits, return_exceptions=True)

        assert admission.is_empty()
        assert await visit() == 0

    in_virtual_time(story())


async def test_who_gave_up_at_the_head_makes_room_for_the_next() -> None:
    admission, entered = gate(), Diary()
    inside, head, small = (Visitor(admission, cost, entered) for cost in (10, 9, 4))
    await settle()
    assert entered == [inside]
    head.task.cancel()
    await settle()
    await let_go(inside, small)

    assert entered == [inside, small]
    assert admission.is_empty()


async def test_thousands_that_give_up_at_once_make_room_for_the_next() -> None:
    admission, entered = gate(max_waiting=3_000), Diary()
    inside, *waiting, last = (Visitor(admission, CAPACITY, entered) for _ in range(2_002))
    await settle()
    for visitor in waiting:
        visitor.task.cancel()
    await settle()
    await let_go(inside, last)

    assert entered == [inside, last]
    assert admission.is_empty()


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
    await let_go(after)

    assert admission.is_empty()


async def test_who_fails_inside_gives_the_place_back() -> None:
    admission = gate()
    with pytest.raises(KeyError):
        async with admission.admit(CAPACITY, soon()):
            raise KeyError
    assert admission.is_empty()
