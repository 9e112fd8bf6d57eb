"""Answers that wait until the client reads them, within a bound on their bytes.

Depends on bytes and on a body budget, not on lines. Invariant: the answers that wait have at most
`max_bytes`, except a single larger one; they are taken in the order in which they were put.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

BATCH_BYTES = 64 * 2**10
"""Bytes that are taken at once: fewer, larger writes for many small answers."""


class UnsentAnswers:
    """A queue of answers for one writer.

    `reserve` is called with the change of their bytes, and `on_full` with whether putting waits.
    """

    def __init__(
        self, max_bytes: int, reserve: Callable[[int], None], on_full: Callable[[bool], None]
    ) -> None:
        self._max_bytes = max_bytes
        self._reserve = reserve
        self._on_full = on_full
        self._answers: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Condition()

    async def put(self, answer: bytes) -> None:
        """Add an answer, after waiting until there is room for it."""
        async with self._changed:
            while self._answers and self._bytes + len(answer) > self._max_bytes:
                self._on_full(True)
                await self._changed.wait()
            self._on_full(False)
            self._answers.append(answer)
            self._count(len(answer))
            self._changed.notify_all()

    async def take(self) -> bytes:
        """The next answers together, once there are any; empty after the last one."""
        async with self._changed:
            while not self._answers and not self._closed:
                await self._changed.wait()

            batch: list[bytes] = []
            size = 0
            while self._answers and size < BATCH_BYTES:
                batch.append(self._answers.popleft())
                size += len(batch[-1])
            self._count(-size)
            self._changed.notify_all()
            return b"".join(batch)

    async def close(self) -> None:
        """Let the writer end once it has taken everything."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Drop all answers: the client has gone."""
        self._answers.clear()
        self._count(-self._bytes)

    def _count(self, more: int) -> None:
        self._bytes += more
        self._reserve(more)
