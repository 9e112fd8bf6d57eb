"""Stored images in this process's memory.

The module depends on checked images and a clock. Invariant: the bytes never exceed the bound, and
no image is returned after its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from service.gateway.images.byte_index import ByteIndex
from service.gateway.images.keys import ImageKey
from service.gateway.media.encoded_image import EncodedImage
from service.observability.image_metrics import IMAGE_STORE_BYTES, IMAGE_STORE_LIMIT_BYTES

ENTRY_BYTES = 1_024
"""Memory of an entry beside the image's bytes, at most: its objects, and its places in indexes."""
_RENEWED_PER_TTL = 10
"""An image that is in use is renewed in the other tiers this often within the time it is kept."""


@dataclass(slots=True)
class _Entry:
    image: EncodedImage
    expires_at: float
    renew_at: float


class MemoryImages:
    """Images up to `max_bytes`, each for `ttl_seconds` after it was last put or used."""

    name = "memory"

    def __init__(
        self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._clock = clock
        self._index = ByteIndex(max_bytes)
        self._entries: dict[bytes, _Entry] = {}
        IMAGE_STORE_LIMIT_BYTES.labels(self.name).set(max_bytes)

    def get(self, key: ImageKey) -> EncodedImage | None:
        """An image, which is then kept for its whole time again."""
        entry = self._entries.get(key.name)
        if entry is None:
            return None

        now = self._clock()
        if entry.expires_at <= now:
            self._remove(key.name)
            return None
        entry.expires_at = now + self._ttl
        self._index.use(key.name)
        return entry.image

    def put(self, key: ImageKey, image: EncodedImage) -> None:
        """Keep an image; the least recently used ones go for it."""
        self.purge()
        now = self._clock()
        renew_at = now + self._ttl / _RENEWED_PER_TTL
        self._entries[key.name] = _Entry(image, now + self._ttl, renew_at)
        for name in self._index.add(key.scope, key.name, len(image.data) + ENTRY_BYTES):
            del self._entries[name]
        IMAGE_STORE_BYTES.labels(self.name).set(self._index.total)

    def due(self, key: ImageKey) -> EncodedImage | None:
        """The image if it should be renewed in the other tiers now; it counts as renewed then."""
        entry = self._entries.get(key.name)
        now = self._clock()
        if entry is None or now < entry.renew_at:
            return None
        entry.renew_at = now + self._ttl / _RENEWED_PER_TTL
        return entry.image

    def purge(self) -> None:
        """Drop the images whose time is over."""
        now = self._clock()
        # the order of use is that of expiry, because every use gives an image its whole time again
        while (name := self._index.oldest()) and self._entries[name].expires_at <= now:
            self._remove(name)
        IMAGE_STORE_BYTES.labels(self.name).set(self._index.total)

    def _remove(self, name: bytes) -> None:
        self._index.remove(name)
        del self._entries[name]
