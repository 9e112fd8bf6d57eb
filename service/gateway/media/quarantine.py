"""Images that recently harmed a decoder; sent again, they are refused without being opened.

The module depends on digests, on no image. Invariant: it holds at most `MAX_IMAGES` digests, each
for `SECONDS` of a monotonic clock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from service.errors import InvalidImage
from service.observability.metrics import QUARANTINED

MAX_IMAGES = 1_024
SECONDS = 60.0
"""Long enough for a client that retries; short for a sound image that a busy machine was slow
with."""


class Quarantine:
    """Digests of refused images, each with the message of its refusal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def add(self, digest: bytes, message: str) -> InvalidImage:
        """Add an image, and return the error that it is refused with from now on."""
        self._entries.pop(digest, None)
        self._entries[digest] = (self._clock() + SECONDS, message)
        if len(self._entries) > MAX_IMAGES:
            self._entries.popitem(last=False)
        return InvalidImage(message)

    def refusal(self, digest: bytes) -> InvalidImage | None:
        """The error of an image in quarantine; None for any other image."""
        entry = self._entries.get(digest)
        if entry is None:
            return None

        expires, message = entry
        if expires <= self._clock():
            del self._entries[digest]
            return None
        QUARANTINED.inc()
        return InvalidImage(message)
