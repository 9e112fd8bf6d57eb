"""A bounded window of tokens: the work of all calls that is inside the engine at once.

Depends on costs alone. Invariant: pairs enter in the order in which they began to wait. Each call
waits with one pair at a time, so calls alternate, and a short call waits for about one window of
work, however long the others are.
"""

from __future__ import annotations

import asyncio


class Window:
    """Room for `tokens`. A pair that is larger enters when nothing else is inside."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._used = 0
        self._first_in_line = asyncio.Lock()
        self._left = asyncio.Event()

    async def enter(self, cost: int) -> None:
        """Wait for a turn, then for room. Each `enter` needs one `leave` with the same cost."""
        async with self._first_in_line:
            while self._used and self._used + cost > self._tokens:
                self._left.clear()
                await self._left.wait()
            self._used += cost

    def leave(self, cost: int) -> None:
        """Free the room of a pair that has entered."""
        self._used -= cost
        self._left.set()
