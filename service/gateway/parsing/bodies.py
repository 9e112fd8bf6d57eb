"""Bodies read off the event loop: the large ones one at a time, so that the memory of reading is
that of one.

Knows sizes and threads, nothing of what a body says. Invariant: the event loop waits for no body
larger than `SMALL_BYTES`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio.to_thread

from service.api import Limits
from service.errors import InvalidRequest
from service.gateway.parsing.json_body import JsonBody

Result = TypeVar("Result")

SMALL_BYTES = 16 * 2**10
"""A body as small as this is outlined at once: a thread would take longer."""
LARGE_BYTES = 2**20
"""Bodies above this are read one at a time."""
_MARKS_A_DOCUMENT = 8
_MAX_NAME = 64
"""Characters of a field's name that an answer repeats."""


class BodyReading:
    """Reads bodies within the limits of a request."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_marks = max(limits.max_json_delimiters, _MARKS_A_DOCUMENT * limits.max_documents)
        self._large = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait until a body of so many bytes may be read, and let the next one in at the end."""
        if size <= LARGE_BYTES:
            yield
            return
        async with self._large:
            yield

    async def outline(self, body: bytearray, needed: Container[str]) -> JsonBody:
        """A body whose documents are counted and not built; raises `InvalidRequest` where it is
        beyond the bounds."""
        if len(body) <= SMALL_BYTES:
            outline = JsonBody(body, self._max_marks, needed)
        else:
            outline = await anyio.to_thread.run_sync(JsonBody, body, self._max_marks, needed)
        most = self._limits.max_documents
        for name, length in outline.entries.items():
            if length > most:
                raise InvalidRequest(_sentence(name, most)).at((name[:_MAX_NAME],))
        return outline

    async def build(
        self, outline: JsonBody, read: Callable[[dict[str, Any], Limits], Result]
    ) -> Result:
        """Build the body, and give what `read` makes of it."""
        return await anyio.to_thread.run_sync(lambda: read(outline.build(), self._limits))


def _sentence(name: str, most: int) -> str:
    if name == "documents":
        return f"A request takes 1 to {most} documents."
    return f"This list may have {most} entries."
