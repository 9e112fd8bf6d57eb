"""Opens the store of images that the settings describe, with its tiers.

The module depends on settings and constructs every part of the store. Invariant: nothing is read or
written before the store is used.
"""

from __future__ import annotations

from service.gateway.cache.opening import open_redis
from service.gateway.images.disk_tier import DiskImages
from service.gateway.images.in_use import ImagesInUse
from service.gateway.images.memory_tier import MemoryImages
from service.gateway.images.redis_tier import CONNECTIONS, RedisImages
from service.gateway.images.settings import ImageStoreSettings
from service.gateway.images.store import ImageStore
from service.gateway.images.tier import Tier
from service.limits import Limits


def open_images(settings: ImageStoreSettings, limits: Limits, secret: bytes) -> ImageStore | None:
    """The store; None where no images are to be stored. `secret` keys the names in Redis."""
    memory_bytes = settings.images_memory_bytes
    if not memory_bytes:
        return None

    return ImageStore(
        limits,
        MemoryImages(memory_bytes, settings.images_ttl_seconds),
        _tiers(settings, limits, secret),
        ImagesInUse(memory_bytes),
        ttl_seconds=settings.images_ttl_seconds,
        tier_seconds=settings.images_timeout_ms / 1000,
    )


def _tiers(settings: ImageStoreSettings, limits: Limits, secret: bytes) -> list[Tier]:
    """The tiers behind memory, the nearest first."""
    seconds = settings.images_timeout_ms / 1000
    tiers: list[Tier] = []
    if settings.images_folder is not None:
        disk = DiskImages(
            settings.images_folder,
            max_bytes=settings.images_disk_bytes,
            ttl_seconds=settings.images_ttl_seconds,
            max_image_bytes=limits.max_image_bytes,
            seconds=seconds,
        )
        tiers.append(disk)

    client = open_redis(settings, connections=CONNECTIONS) if settings.images_redis else None
    if client is not None:
        redis = RedisImages(
            client,
            secret,
            prefix=settings.redis_key_prefix,
            max_bytes=settings.images_redis_bytes,
            max_image_bytes=limits.max_image_bytes,
            ttl_seconds=settings.images_ttl_seconds,
            budget_seconds=seconds,
        )
        tiers.append(redis)
    return tiers
