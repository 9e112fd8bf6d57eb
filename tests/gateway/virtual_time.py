"""An event loop whose clock is a number: sleeping takes no time, everything else is as in a real
one."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Leap(selectors.SelectSelector):
    """Advances the clock instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for somebody else"
        self.now += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now


def in_virtual_time(story: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, in virtual time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(story)
