"""The store of images: memory first, then the tiers that outlive the process or are shared.

The module depends on checked images, scopes and tiers, on no request and no HTTP. An image is kept
for a time after it was last put or referred to: each use gives it its whole time again in memory,
and at least once in a tenth of that time in the other tiers. Invariant: the bytes that the store
returns have the digest that they were asked for by, whatever tier they come from; a scope is never
told of another's images, because it has no key of them; a tier that fails loses images and nothing
else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio.to_thread

from service.errors import DeadlineExceeded, ImageTooLarge, RerankError, UnknownImage
from service.gateway.images.in_use import HeldImages, ImagesInUse
from service.gateway.images.keys import ImageKey, image_key, scope_id
from service.gateway.images.memory_tier import ENTRY_BYTES, MemoryImages
from service.gateway.images.tier import READ_AT_ONCE, Tier
from service.gateway.media.encoded_image import EncodedImage, checked_image
from service.limits import Limits
from service.observability.image_metrics import IMAGE_LOOKUPS, IMAGE_REJECTED
from service.observability.request_context import stage

SWEEP_SECONDS = 60.0
_MAX_RENEWALS = 16
"""Renewals of other tiers that are under way at once; more are left out."""

Found = dict[bytes, EncodedImage | RerankError]


class ImageStore:
    """Images by scope and digest, for `ttl_seconds` after they were last put or used.

    `tier_seconds` is how long a request waits for the images of one tier.
    """

    def __init__(
        self,
        limits: Limits,
        memory: MemoryImages,
        tiers: Sequence[Tier],
        in_use: ImagesInUse,
        *,
        ttl_seconds: int,
        tier_seconds: float,
    ) -> None:
        self._limits = limits
        self._memory = memory
        self._tiers = tuple(tiers)
        self._in_use = in_use
        self._ttl = ttl_seconds
        self._tier_seconds = tier_seconds
        self._renewals: set[asyncio.Task[None]] = set()

    @property
    def max_image_bytes(self) -> int:
        """The size of the largest image that is stored: scopes may have to share the memory."""
        return self._memory.max_bytes // 2 - ENTRY_BYTES

    def opened(self, scope: str) -> OpenedImages:
        """The images of a scope, for one request."""
        self._in_use.release_ended()
        return OpenedImages(self, HeldImages(self._in_use, scope_id(scope)))

    async def put(self, images: Collection[EncodedImage], scope: str) -> int:
        """Store images; returns when they are gone if they are not used, in Unix seconds."""
        keys = self._keys({image.digest for image in images}, scope)
        values: dict[ImageKey, bytes] = {}
        for image in images:
            key = keys[image.digest]
            self._memory.put(key, image)
            values[key] = image.data

        for tier in self._tiers:
            await tier.write(values)
        return int(time.time()) + self._ttl

    async def missing(self, digests: Collection[bytes], scope: str) -> set[bytes]:
        """The digests of which the scope has no image; the images of the others are renewed."""
        keys = self._keys(digests, scope)
        absent = {key for key in keys.values() if self._memory.get(key) is None}
        self._renew(set(keys.values()) - absent)
        for tier in self._tiers:
            if absent:
                absent -= await tier.renew(absent)
        return {key.digest for key in absent}

    async def load(self, held: HeldImages, digests: Collection[bytes], deadline: float) -> Found:
        """The images that a request holds from now on, or the errors instead."""
        found: Found = {}
        absent: list[ImageKey] = []
        present: list[ImageKey] = []
        for digest in digests:
            key = image_key(held.scope, digest)
            image = self._memory.get(key)
            if image is None:
                absent.append(key)
            else:
                found[digest] = _held(held, key, image)
                present.append(key)

        _count("memory", len(present), len(absent))
        self._renew(present)
        if absent and self._tiers:
            with stage("fetch"):
                for tier in self._tiers:
                    absent = await self._load_from(tier, absent, held, found, deadline)
        in_time = asyncio.get_running_loop().time() < deadline
        for key in absent:
            found[key.digest] = UnknownImage() if in_time else DeadlineExceeded()
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep the tiers while the context lasts, and wait for them at its end, within bounds."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, *self._renewals, return_exceptions=True)
            for tier in self._tiers:
                await tier.close()

    async def _sweep(self) -> None:
        for tier in self._tiers:
            await tier.warm_up()
        while True:
            self._memory.purge()
            self._in_use.release_ended()
            for tier in self._tiers:
                await tier.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    def _keys(self, digests: Collection[bytes], scope: str) -> dict[bytes, ImageKey]:
        identity = scope_id(scope)
        return {digest: image_key(identity, digest) for digest in digests}

    async def _load_from(
        self,
        tier: Tier,
        keys: Sequence[ImageKey],
        held: HeldImages,
        found: Found,
        deadline: float,
    ) -> list[ImageKey]:
        """Add a tier's images to what was found; returns the keys that it has none of in time."""
        clock = asyncio.get_running_loop().time
        end = min(deadline, clock() + self._tier_seconds)
        absent: list[ImageKey] = []
        for start in range(0, len(keys), READ_AT_ONCE):
            part = keys[start : start + READ_AT_ONCE]
            left = end - clock()
            values = await tier.read(part, left) if left > 0 else {}
            images = await anyio.to_thread.run_sync(self._verified, tier, values)
            for key in part:
                image = images.get(key)
                if image is None:
                    absent.append(key)
                    continue
                found[key.digest] = _held(held, key, image)
                self._memory.put(key, image)

        _count(tier.name, len(keys) - len(absent), len(absent))
        return absent

    def _verified(
        self, tier: Tier, values: Mapping[ImageKey, bytes]
    ) -> dict[ImageKey, EncodedImage]:
        """The images among values of a tier. What is none within the limits, or another than its
        key says, is left out."""
        images: dict[ImageKey, EncodedImage] = {}
        for key, data in values.items():
            try:
                image = checked_image(data, self._limits)
            except RerankError:
                image = None
            if image is None or image.digest != key.digest:
                IMAGE_REJECTED.labels(tier.name).inc()
            else:
                images[key] = image
        return images

    def _renew(self, keys: Collection[ImageKey]) -> None:
        """Start to renew images that are in use in the other tiers, where it is time to."""
        if not self._tiers:
            return
        due: dict[ImageKey, bytes] = {}
        for key in keys:
            image = self._memory.due(key)
            if image is not None:
                due[key] = image.data
        if not due or len(self._renewals) >= _MAX_RENEWALS:
            return

        renewal = asyncio.create_task(self._renewed(due))
        self._renewals.add(renewal)
        renewal.add_done_callback(self._renewals.discard)

    async def _renewed(self, images: Mapping[ImageKey, bytes]) -> None:
        """Renew images in the other tiers, and write them where a tier has lost them."""
        for tier in self._tiers:
            there = await tier.renew(images.keys())
            await tier.write({key: data for key, data in images.items() if key not in there})


class OpenedImages:
    """The stored images of one request, which it holds as long as it refers to this."""

    def __init__(self, store: ImageStore, held: HeldImages) -> None:
        self._store = store
        self._held = held

    async def load(
        self, digests: Collection[bytes], deadline: float
    ) -> Mapping[bytes, EncodedImage | RerankError]:
        """The image of each digest, or the error instead; raises `Overloaded`."""
        return await self._store.load(self._held, digests, deadline)


def _held(held: HeldImages, key: ImageKey, image: EncodedImage) -> EncodedImage | RerankError:
    """The image, which the request then holds, or the error where it holds too much."""
    try:
        held.hold(key, len(image.data))
    except ImageTooLarge as error:
        return error.with_traceback(None)
    return image


def _count(tier: str, hits: int, misses: int) -> None:
    IMAGE_LOOKUPS.labels(tier, "hit").inc(hits)
    IMAGE_LOOKUPS.labels(tier, "miss").inc(misses)
