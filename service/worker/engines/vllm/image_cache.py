"""The size of vLLM's cache of image embeddings, where documents come first in prompts.

An image whose keys and values are all in the prefix cache needs no embeddings for its score, but
vLLM takes no prompt without them. So that a vision tower never works for such an image, the cache
of embeddings has room for the images of a whole prefix cache: an embedding takes a fifth to a ninth
of a token's keys and values, in host memory. Depends on sizes alone. Invariant: the result is never
less than vLLM's default.
"""

from __future__ import annotations

import os
from pathlib import Path

from model_store.checkpoint import Checkpoint
from model_store.sizing.network import network_cost

GIB = 2**30
HOST_SHARE = 4
"""The cache takes at most one part in so many of the memory that the process may use."""
_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The container's limit in cgroup v2, in bytes, or `max`."""


def image_cache_gib(
    checkpoint: Checkpoint, kv_bytes: float, default: float, host_bytes: int
) -> float:
    """GiB of embeddings for a prefix cache of at most `kv_bytes`, on a host with `host_bytes`.

    It is `default` where a prompt begins with the query, since no image's keys and values are kept
    for the next query there, and where the model reads text only.
    """
    if checkpoint.family.images is None or checkpoint.family.cacheable_side != "document":
        return default

    cost = network_cost(str(checkpoint.folder))
    covering = kv_bytes * cost.image_bytes / cost.kv_bytes
    return max(default, min(covering, host_bytes / HOST_SHARE) / GIB)


def memory_bytes(limit: Path = _LIMIT) -> int:
    """The memory that this process may use, in bytes: that of the machine or of its container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(limit.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return machine
