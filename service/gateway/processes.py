"""The parts of a gateway's bounds for each of its processes, and what the processes share.

Depends on settings, not on how processes are started. A setting that bounds memory, or work under
way, is for the gateway as a whole, and each process gets an equal part of it, rounded up.
Invariant: all processes have the same secret of the score cache.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from pathlib import Path

import anyio
from pydantic import SecretStr

from service.gateway.settings import GatewaySettings

_POLL_SECONDS = 0.02
DIVIDED = (
    "capacity_tokens",
    "max_queued_requests",
    "max_waiting_for_worker",
    "max_waiting_for_worker_bytes",
    "max_streams",
    "max_bodies_bytes",
    "cache_memory_bytes",
    "images_memory_bytes",
    "images_redis_bytes",
    "image_url_fetches",
    "feedback_memory_bytes",
    "feedback_redis_bytes",
    "feedback_buffer_bytes",
)
"""Settings of which each process gets its part."""


def part_of(value: int, processes: int) -> int:
    """The part of a bound that one of several processes gets, rounded up."""
    return math.ceil(value / processes)


def lacks_shared_images(settings: GatewaySettings) -> bool:
    """True if several processes store images where the others do not find them."""
    is_shared = settings.images_folder or (settings.images_redis and settings.redis_url)
    return settings.processes > 1 and settings.images_memory_bytes > 0 and not is_shared


def settings_of_process(settings: GatewaySettings, images: Path | None = None) -> GatewaySettings:
    """The settings of each of several processes, with a secret in common.

    `images` is a folder that they share for stored images, of as many bytes as those in memory.
    """
    own: dict[str, object] = {}
    for name in DIVIDED:
        bound = getattr(settings, name)
        if bound is not None:
            own[name] = part_of(bound, settings.processes)

    if not settings.cache_key_secret:
        own["cache_key_secret"] = SecretStr(secrets.token_hex(32))
    if images is not None:
        own |= {"images_folder": images, "images_disk_bytes": settings.images_memory_bytes}
    return settings.model_copy(update=own)


async def until_ready(is_ready: Callable[[], bool], settings: GatewaySettings) -> None:
    """Have one of several processes wait until it knows a worker, for as long as a probe may take.

    It accepts no connection meanwhile: the others, which know workers already, take them.
    """
    if settings.processes == 1:
        return

    with anyio.move_on_after(settings.worker_probe_timeout_ms / 1000):
        while not is_ready():
            await anyio.sleep(_POLL_SECONDS)
