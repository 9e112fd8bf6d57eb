"""Images that have just harmed a decoder, remembered for a moment: sent again, they are refused
unopened.

Knows digests, nothing of images. Invariant: it remembers so many at most, each so long at most, by
a monotonic clock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from service.errors import InvalidImage
from service.observability.metrics import QUARANTINED

MOST = 1_024
SECONDS = 60.0
"""Long enough for a client that tries again; short enough for an image that was only unlucky, on a
machine that was too busy."""


class Quarantine:
    """The sentence that each of them was refused with, by digest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def add(self, digest: bytes, sentence: str) -> InvalidImage:
        """Remember one; the error that it is refused with, from now on."""
        self._held.pop(digest, None)
        self._held[digest] = (self._clock() + SECONDS, sentence)
        if len(self._held) > MOST:
            self._held.popitem(last=False)
        return InvalidImage(sentence)

    def refusal(self, digest: bytes) -> InvalidImage | None:
        """The error, if it is one of them."""
        until, sentence = self._held.get(digest, (0.0, ""))
        if not sentence:
            return None
        if until <= self._clock():
            del self._held[digest]
            return None
        QUARANTINED.inc()
        return InvalidImage(sentence)
