"""Settings of stored images, a part of the gateway's: their tiers, sizes and times.

The module has names and bounds and opens no folder. Invariant: every tier has a bound of bytes, and
every image one of time.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from service.gateway.cache.settings import CacheSettings


class ImageStoreSettings(CacheSettings):
    """All settings of stored images, and of the score cache, whose Redis they share."""

    images_memory_bytes: int = Field(
        256 * 2**20,
        ge=0,
        le=2**40,
        description=(
            "Bytes of memory for images of PUT /v1/images, each of up to half of it; running"
            " requests may hold as much again; 0: no images are stored."
        ),
    )
    images_ttl_seconds: int = Field(
        86_400,
        ge=60,
        le=31 * 86_400,
        description="Seconds that an image is stored after it was last put or referred to.",
    )
    images_folder: Path | None = Field(
        None,
        description=(
            "Folder in which images are stored, too, so that they outlive the process and are"
            " shared by gateways that have the folder; default: none."
        ),
    )
    images_disk_bytes: int = Field(
        4 * 2**30, ge=2**20, le=2**50, description="Bytes of stored images in the folder."
    )
    images_redis: bool = Field(
        True, description="Store images in Redis, too, for other gateways, where there is a Redis."
    )
    images_redis_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        le=2**40,
        description="Bytes of stored images that one gateway keeps in Redis.",
    )
    images_timeout_ms: int = Field(
        2_000,
        ge=1,
        le=60_000,
        description="Milliseconds that a request waits for the folder, and for Redis, of images.",
    )
