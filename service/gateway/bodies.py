"""How many bytes of request bodies are held at once, over all requests.

Knows numbers alone. Bytes are counted as they arrive and given back when their request is answered, for what was read from them
(texts, encoded images) lives as long. Invariant: never more than the bound is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Overloaded
from service.metrics import BODY_BYTES, BODY_LIMIT_BYTES, SHED


class Bodies:
    """A bound on body bytes over all requests."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._held = 0
        BODY_LIMIT_BYTES.set(max_bytes)

    @contextmanager
    def held(self, announced: int = 0) -> Iterator[Callable[[int], None]]:
        """Gives a function that counts bytes of one request; it, and `announced` bytes that do not fit, raise `Overloaded`."""
        mine = 0

        def count(more: int) -> None:
            nonlocal mine
            self._expect(more)
            mine += more
            self._change(more)

        self._expect(announced)
        try:
            yield count
        finally:
            self._change(-mine)

    def _expect(self, more: int) -> None:
        if self._held + more > self._max:
            SHED.labels("bodies").inc()
            raise Overloaded

    def _change(self, by: int) -> None:
        self._held += by
        BODY_BYTES.set(self._held)
