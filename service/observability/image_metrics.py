"""The metrics of a gateway's stored images, each by its name, with its labels.

Does not depend on where images are stored. Invariant: as in `service.observability.metrics`,
nothing that a caller sent becomes a label.
"""

from __future__ import annotations

from service.observability.metric_types import counter, gauge

_TIERS = ("memory", "disk", "redis")

IMAGES_PUT = counter(
    "rerank_images_put_total",
    "Images of PUT /v1/images, by outcome: stored, or the code of the error.",
    outcome=("stored", "image_too_large", "invalid_image"),
)
IMAGE_LOOKUPS = counter(
    "rerank_image_lookups_total",
    "Stored images that requests referred to, by tier and result.",
    tier=_TIERS,
    result=("hit", "miss"),
)
IMAGE_REJECTED = counter(
    "rerank_image_rejected_total",
    "Values of the disk or of Redis that were not the image of their digest, and were not used.",
    tier=_TIERS[1:],
)
IMAGE_STORE_BYTES = gauge(
    "rerank_image_store_bytes",
    "Bytes of stored images by tier; in Redis, of those that this gateway wrote.",
    tier=_TIERS,
)
IMAGE_STORE_LIMIT_BYTES = gauge(
    "rerank_image_store_limit_bytes", "Maximum bytes of stored images by tier.", tier=_TIERS
)
IMAGES_IN_USE_BYTES = gauge(
    "rerank_images_in_use_bytes", "Bytes of the stored images that running requests refer to."
)
IMAGE_DISK_FAILURES = counter(
    "rerank_image_disk_failures_total",
    "Failed or skipped operations on the folder of stored images.",
    operation=("read", "write", "renew", "sweep"),
)
