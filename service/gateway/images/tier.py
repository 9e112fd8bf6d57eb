"""The seam of tiers behind memory: stores of images that others may read, write or lose.

Invariant: a tier raises nothing, and waits no longer than its own bounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from service.gateway.images.keys import ImageKey

READ_AT_ONCE = 4
"""Images that are read from a tier by one call, so that those on their way are few."""


class Tier(Protocol):
    """A store of images by key. It may lose any of them at any time; one that cannot be read is not
    there. The bytes that it returns are to be verified."""

    @property
    def name(self) -> Literal["disk", "redis"]: ...

    async def read(self, keys: Sequence[ImageKey], seconds: float) -> dict[ImageKey, bytes]:
        """The bytes of up to `READ_AT_ONCE` images that are there, waited for so long at most."""
        ...

    async def write(self, images: Mapping[ImageKey, bytes]) -> None:
        """Store images for their whole time."""
        ...

    async def renew(self, keys: Collection[ImageKey]) -> set[ImageKey]:
        """Give images their whole time again, and return those that are there."""
        ...

    async def sweep(self) -> None:
        """Remove what is over its time or its bounds; called once in a while."""
        ...

    async def warm_up(self) -> None:
        """Begin what no request should wait for; a failure is logged."""
        ...

    async def close(self) -> None:
        """Wait for what is under way, for a bounded time."""
        ...
