"""Request bodies parsed: small ones on the event loop, others in a thread, and large ones one at a
time, so that parsing takes the memory of one.

The module depends on sizes and threads, on no field's meaning. Invariant: the event loop scans no
body larger than `SMALL_BYTES`, and builds none that takes more memory than `SMALL_MEMORY`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio.to_thread

from service.errors import InvalidRequest
from service.gateway.parsing.json_body import JsonBody, Path
from service.limits import Limits

Result = TypeVar("Result")

SMALL_BYTES = 128 * 2**10
"""Bodies up to this size are scanned on the event loop, in a fraction of a millisecond: to hand
them to a thread would take longer."""
SMALL_MEMORY = 160 * 2**10
"""Bodies of up to so many bytes in memory are built there, too: 100 texts of 1,000 characters, or
about 800 values, of which the dearest take some milliseconds."""
LARGE_BYTES = 2**20
"""Bodies above this size are parsed one at a time."""
_MIN_DELIMITERS_PER_DOCUMENT = 8
_MAX_NAME = 64
"""Characters of a field's name that an error repeats."""


class BodyParser:
    """Parses request bodies within `limits`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_delimiters = max(
            limits.max_json_delimiters, _MIN_DELIMITERS_PER_DOCUMENT * limits.max_documents
        )
        self._large = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Hold the right to parse a body of `size` bytes, after waiting for it where the body is
        large."""
        if size <= LARGE_BYTES:
            yield
            return

        async with self._large:
            yield

    async def outline(self, body: bytearray, needed: Collection[Path]) -> JsonBody:
        """A body whose fields and documents are counted and not built; `needed` as for
        `JsonBody`.

        Raises `InvalidRequest` where the body is beyond the bounds.
        """
        if len(body) <= SMALL_BYTES:
            outline = JsonBody(body, self._max_delimiters, needed)
        else:
            outline = await anyio.to_thread.run_sync(JsonBody, body, self._max_delimiters, needed)

        for path, length in outline.entries.items():
            self._check_length(path, length)
        return outline

    async def build(
        self, outline: JsonBody, read: Callable[[dict[str, Any], Limits], Result]
    ) -> Result:
        """Build the body's object, a larger one in a thread, and return the result of `read` for
        it."""
        if outline.memory <= SMALL_MEMORY:
            return read(outline.build(), self._limits)
        return await anyio.to_thread.run_sync(lambda: read(outline.build(), self._limits))

    def _check_length(self, path: Path, length: int) -> None:
        most = self._limits.max_documents
        if length <= most:
            return

        loc = (path,) if isinstance(path, str) else path
        message = f"This list may have {most} entries."
        if loc[-1] == "documents":
            message = f"A request takes 1 to {most} documents."
        raise InvalidRequest(message).at(tuple(name[:_MAX_NAME] for name in loc))
