"""How much of all calls together is inside the engine at once: a bounded window of tokens, entered
in turns.

Knows costs alone. Invariant: who asks first enters first. Since each call asks for one pair at a
time, calls take turns pair by pair, and a short call waits for about one window of work, however
long the others are.
"""

from __future__ import annotations

import asyncio


class Window:
    """Room for `tokens`. What is larger than that enters when nothing else is inside."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._used = 0
        self._head_of_the_line = asyncio.Lock()
        self._left = asyncio.Event()

    async def enter(self, cost: int) -> None:
        """Wait for one's turn, then for room. What has entered must `leave`."""
        async with self._head_of_the_line:
            while self._used and self._used + cost > self._tokens:
                self._left.clear()
                await self._left.wait()
            self._used += cost

    def leave(self, cost: int) -> None:
        self._used -= cost
        self._left.set()
