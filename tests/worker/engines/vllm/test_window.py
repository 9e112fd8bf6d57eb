"""The engine's window is never overfull, is entered in turns, and forgets nobody who leaves it or
gives up waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.worker.engines.vllm.window import Window

ROOM = 10
Costs = st.lists(st.integers(1, 15), min_size=1, max_size=12)
_OFTEN = 60


class Crowd:
    """Tasks that each enter a window, and what is known of them from outside."""

    def __init__(self, costs: list[int]) -> None:
        self.window = Window(ROOM)
        self.costs = costs
        self.inside: list[int] = []
        self.order: list[int] = []
        self.tasks = [asyncio.create_task(self._enter(place)) for place in range(len(costs))]

    async def _enter(self, place: int) -> None:
        await self.window.enter(self.costs[place])
        self.inside.append(place)
        self.order.append(place)

    def leave(self, place: int) -> None:
        self.inside.remove(place)
        self.window.leave(self.costs[place])

    async def settle(self) -> None:
        """Let everybody go as far as they can, and see that there are not too many inside."""
        for _ in range(_OFTEN):
            await asyncio.sleep(0)
        assert sum(self.costs[place] for place in self.inside) <= ROOM or len(self.inside) == 1

    async def empty(self) -> None:
        """All who wait get in, as those who are inside leave."""
        await self.settle()
        while self.inside:
            self.leave(self.inside[0])
            await self.settle()
        assert all(task.done() for task in self.tasks)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


@given(Costs, st.randoms(use_true_random=False))
def test_all_enter_in_the_order_they_came_and_never_too_many(costs: list[int], rng: Any) -> None:
    async def test() -> None:
        crowd = Crowd(costs)
        await crowd.settle()
        while crowd.inside:
            crowd.leave(rng.choice(crowd.inside))
            await crowd.settle()
        assert crowd.order == list(range(len(costs)))

    run(test)


@given(Costs, st.data())
def test_those_who_give_up_take_no_room(costs: list[int], data: st.DataObject) -> None:
    """Whoever gives up, at any moment, before or after a turn: the others still get in, and all
    room is there in the end."""

    async def test() -> None:
        crowd = Crowd(costs)
        for _ in range(data.draw(st.integers(0, 2 * len(costs)))):
            for _ in range(data.draw(st.integers(0, 3))):
                await asyncio.sleep(0)
            if crowd.inside and data.draw(st.booleans()):
                crowd.leave(data.draw(st.sampled_from(crowd.inside)))
            else:
                crowd.tasks[data.draw(st.integers(0, len(costs) - 1))].cancel()
        await crowd.empty()
        gave_up = [place for place, task in enumerate(crowd.tasks) if task.cancelled()]
        assert sorted([*crowd.order, *gave_up]) == list(range(len(costs)))
        assert crowd.order == sorted(crowd.order)
        await asyncio.wait_for(crowd.window.enter(ROOM), 10)
        waiting = asyncio.create_task(crowd.window.enter(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        crowd.window.leave(ROOM)
        await asyncio.wait_for(waiting, 10)

    run(test)


def test_what_is_larger_than_the_window_enters_alone() -> None:
    async def test() -> None:
        crowd = Crowd([3, 25, 2])
        await crowd.settle()
        assert crowd.inside == [0]
        crowd.leave(0)
        await crowd.settle()
        assert crowd.inside == [1]
        crowd.leave(1)
        await crowd.settle()
        assert crowd.inside == [2]

    run(test)
