"""Embeddings of images, encoded once for all calls that need them at the same time.

Depends on a function that encodes, not on vLLM. Invariant: an image is never being encoded twice
at once, and a cancelled caller does not cancel an encoding that others wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from model_store.families.prompt import Image
from service.wire import Pixels
from service.worker.engines.prompts import prompt_image

if TYPE_CHECKING:
    from torch import Tensor

Embeddings = dict[Image, "Tensor"]
Encode = Callable[[Mapping[Image, bytes]], Coroutine[Any, Any, Embeddings]]
"""From images and their rows of RGB bytes to their embeddings, `[tokens, values]` each."""


class ImageEncoder:
    """A single flight over encodings: equal images share one."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._pending: dict[Image, asyncio.Future[Embeddings]] = {}

    async def embeddings(self, images: Collection[Image], pixels: Sequence[Pixels]) -> Embeddings:
        """At least the embeddings of `images`, whose pixels are among `pixels`.

        An image that is being encoded for another call is waited for.
        """
        unknown = set(images) - self._pending.keys()
        if unknown:
            self._begin(unknown, pixels)

        pending = {self._pending[image] for image in images}
        found: Embeddings = {}
        for embeddings in await asyncio.gather(*map(asyncio.shield, pending)):
            found |= embeddings
        return found

    def _begin(self, images: Collection[Image], pixels: Sequence[Pixels]) -> None:
        """Start one encoding of all `images`."""
        contents: dict[Image, bytes] = {}
        for candidate in pixels:
            image = prompt_image(candidate)
            if image in images:
                contents[image] = candidate.rgb

        encoding = asyncio.ensure_future(self._encode(contents))
        self._pending |= dict.fromkeys(contents, encoding)
        encoding.add_done_callback(partial(self._forget, list(contents)))

    def _forget(self, images: Sequence[Image], _: asyncio.Future[Embeddings]) -> None:
        for image in images:
            self._pending.pop(image, None)
