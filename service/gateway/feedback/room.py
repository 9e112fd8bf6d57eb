"""The bound on the bytes of feedback that waits in memory.

The module depends on sizes alone. Invariant: what waits never exceeds the bound.
"""

from __future__ import annotations

from service.observability.feedback_metrics import (
    FEEDBACK_BUFFER_BYTES,
    FEEDBACK_BUFFER_LIMIT_BYTES,
)


class BufferRoom:
    """Room for `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._taken = 0
        FEEDBACK_BUFFER_LIMIT_BYTES.set(max_bytes)

    def take(self, size: int) -> bool:
        """Take room, if there is so much."""
        if self._taken + size > self._max_bytes:
            return False
        self._taken += size
        FEEDBACK_BUFFER_BYTES.set(self._taken)
        return True

    def give_back(self, size: int) -> None:
        """Give back room that was taken."""
        self._taken -= size
        FEEDBACK_BUFFER_BYTES.set(self._taken)
