"""The stored images that running requests hold, counted once for all of them.

The module depends on keys and sizes. A request holds an image until it ends, whether or not the
image is still stored: without a bound, images that are put and referred to in turns would fill the
memory. A request's images are released with the last reference to its `HeldImages`, as the images'
own memory is, however the request ends and in whatever parts it is answered. Invariant: the bytes
of all different images that are held never exceed the bound.
"""

from __future__ import annotations

from collections import Counter, deque

from service.errors import ImageTooLarge, Overloaded
from service.gateway.images.keys import ImageKey
from service.observability.image_metrics import IMAGES_IN_USE_BYTES
from service.observability.metrics import SHED

SCOPE_SHARE = 0.75
"""The share of the bound that several requests of one scope can hold together, so that a scope with
slow requests leaves room for others."""


class ImagesInUse:
    """Images that requests hold, up to `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.total = 0
        """The bytes of all images that are held, with those of `ended`."""
        self._holders: Counter[ImageKey] = Counter()
        self._by_scope: Counter[bytes] = Counter()
        self.ended: deque[dict[ImageKey, int]] = deque()
        """The sizes of images that ended requests held. Any thread may append to it."""

    def add(self, key: ImageKey, size: int, *, of_request: int) -> None:
        """Count one more request that holds an image.

        `of_request` is the number of bytes that the request holds already. Raises `Overloaded`
        where the image does not fit beside those of other requests.
        """
        self.release_ended()
        if key not in self._holders:
            self._check_room(key.scope, size, of_request)
            self._change(key.scope, size)
        self._holders[key] += 1

    def release_ended(self) -> None:
        """Release the images of requests that have ended since it was last called."""
        while self.ended:
            for key, size in self.ended.popleft().items():
                self._holders[key] -= 1
                if not self._holders[key]:
                    del self._holders[key]
                    self._change(key.scope, -size)

    def _check_room(self, scope: bytes, size: int, of_request: int) -> None:
        of_scope = self._by_scope[scope]
        is_alone = of_scope <= of_request
        scope_limit = self.max_bytes if is_alone else int(self.max_bytes * SCOPE_SHARE)
        if self.total + size > self.max_bytes or of_scope + size > scope_limit:
            SHED.labels("stored_images").inc()
            raise Overloaded

    def _change(self, scope: bytes, by: int) -> None:
        self.total += by
        self._by_scope[scope] += by
        if not self._by_scope[scope]:
            del self._by_scope[scope]
        IMAGES_IN_USE_BYTES.set(self.total)


class HeldImages:
    """The images that one request of a scope holds, until nothing refers to this any more."""

    def __init__(self, in_use: ImagesInUse, scope: bytes) -> None:
        self.scope = scope
        self._in_use = in_use
        self._sizes: dict[ImageKey, int] = {}
        self._bytes = 0

    def hold(self, key: ImageKey, size: int) -> None:
        """Hold an image.

        Raises `ImageTooLarge` where the request alone exceeds the bound, and `Overloaded` where it
        does so together with others.
        """
        if key in self._sizes:
            return
        most = self._in_use.max_bytes
        if self._bytes + size > most:
            raise ImageTooLarge(
                f"The stored images of this request are larger than {most} bytes together."
            )
        self._in_use.add(key, size, of_request=self._bytes)
        self._sizes[key] = size
        self._bytes += size

    def __del__(self) -> None:
        self._in_use.ended.append(self._sizes)
