"""The engine's window is never overfull, is entered in turns, and frees the room of tasks that
leave it or are cancelled."""

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
    """Tasks that each enter a window, and the indexes of those inside."""

    def __init__(self, costs: list[int]) -> None:
        self.window = Window(ROOM)
        self.costs = costs
        self.inside: list[int] = []
        self.order: list[int] = []
        self.tasks = [asyncio.create_task(self._enter(index)) for index in range(len(costs))]

    async def _enter(self, index: int) -> None:
        await self.window.enter(self.costs[index])
        self.inside.append(index)
        self.order.append(index)

    def leave(self, index: int) -> None:
        self.inside.remove(index)
        self.window.leave(self.costs[index])

    async def settle(self) -> None:
        """Let every task go as far as it can, and check that not too many are inside."""
        for _ in range(_OFTEN):
            await asyncio.sleep(0)
        assert sum(self.costs[index] for index in self.inside) <= ROOM or len(self.inside) == 1

    async def empty(self) -> None:
        """Empty the window, and check that every waiting task has entered."""
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
def test_cancelled_tasks_take_no_room(costs: list[int], data: st.DataObject) -> None:
    """Tasks are cancelled at any moment, before or after their turn: the others still enter, and in
    the end the window is empty."""

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
        cancelled = [index for index, task in enumerate(crowd.tasks) if task.cancelled()]
        assert sorted([*crowd.order, *cancelled]) == list(range(len(costs)))
        assert crowd.order == sorted(crowd.order)

        await asyncio.wait_for(crowd.window.enter(ROOM), 10)
        waiting = asyncio.create_task(crowd.window.enter(1))
        await asyncio.sleep(0)
        assert not waiting.done()

        crowd.window.leave(ROOM)
        await asyncio.wait_for(waiting, 10)

    run(test)


def test_a_task_larger_than_the_window_enters_alone() -> None:
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
