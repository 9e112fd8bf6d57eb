"""References: images by the SHA-256 digest of their bytes, `sha256:` and 64 hexadecimal digits.

The module depends on the syntax of a reference, on no store. Invariant: no source is a reference
and base64 at once, because base64 has no colon.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Protocol

from service.errors import InvalidImage, RerankError
from service.gateway.media.encoded_image import EncodedImage

_PREFIX = "sha256:"
_REFERENCE = re.compile(r"sha256:([0-9a-fA-F]{64})")


class StoredImages(Protocol):
    """The stored images of one request. What it has loaded is counted as in use until nothing
    refers to this any more."""

    async def load(
        self, digests: Collection[bytes], deadline: float
    ) -> Mapping[bytes, EncodedImage | RerankError]:
        """The image of each digest, or the error instead, before `deadline` (event loop time).

        Raises `Overloaded` where other requests use all memory for stored images.
        """
        ...


class ImageStore(Protocol):
    """A store of images that were put before, apart for each scope."""

    def opened(self, scope: str) -> StoredImages:
        """The images of a scope, for one request."""
        ...


def is_reference(source: str) -> bool:
    """True if an image's source is a reference, well-formed or not."""
    return source.startswith(_PREFIX)


def digest_of(reference: str) -> bytes:
    """The digest in a reference; raises `InvalidImage`."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidImage("The image must be sha256: and 64 hexadecimal digits.")
    return bytes.fromhex(match[1])


def reference_of(digest: bytes) -> str:
    """The reference of a digest."""
    return _PREFIX + digest.hex()
