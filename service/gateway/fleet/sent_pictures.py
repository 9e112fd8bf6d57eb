"""The pictures that a worker was sent and keeps, as far as a gateway knows.

Depends on what a worker says of its store, not on pixels or calls. Other gateways send the worker
pictures, too, so that it may keep fewer than are known here: it refuses those that it lacks.
Invariant: no more is remembered than the worker's store has room for, and nothing of a store that
is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from service.wire import ImageRule, WorkerInfo

MAX_PICTURES = 2**16
_CHANNELS = 3

Key = tuple[str, bytes, ImageRule]
"""A cache salt, the SHA-256 of an encoded image, and the rule that it was resized by."""
Size = tuple[int, int]


class SentPictures:
    """The pictures that one worker keeps, by key, those that were used last."""

    def __init__(self) -> None:
        self._store = ""
        self._max_bytes = 0
        self._bytes = 0
        self._sizes: OrderedDict[Key, Size] = OrderedDict()

    def follow(self, models: Sequence[WorkerInfo]) -> None:
        """Take note of the worker's store, by the models that it serves: pictures of another store
        are forgotten."""
        store, max_bytes = "", 0
        for model in models:
            if model.picture_store:
                store, max_bytes = model.picture_store, model.picture_store_bytes

        if store != self._store:
            self._sizes.clear()
            self._bytes = 0
        self._store, self._max_bytes = store, max_bytes

    def size(self, key: Key) -> Size | None:
        """(width, height) of the pixels that the worker keeps; None where it needs them."""
        return self._sizes.get(key)

    def add(self, key: Key, size: Size) -> None:
        """Note that the worker has just used a picture, with or without pixels in the call."""
        if not self._store:
            return

        self.forget(key)
        self._sizes[key] = size
        self._bytes += _bytes(size)
        while self._bytes > self._max_bytes or len(self._sizes) > MAX_PICTURES:
            self.forget(next(iter(self._sizes)))

    def forget(self, key: Key) -> None:
        """Note that the worker lacks a picture."""
        size = self._sizes.pop(key, None)
        if size is not None:
            self._bytes -= _bytes(size)


def _bytes(size: Size) -> int:
    width, height = size
    return _CHANNELS * width * height
