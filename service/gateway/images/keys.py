"""Keys of stored images: one for each image of each scope.

The module depends on scopes and digests, on no tier. Invariant: two scopes share no key, and a key
does not tell the digest or the scope that it is of.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from service.gateway.media.content import framed

SCHEMA = b"gmr-rerank image 1"
_SCOPE_BYTES = 16


@dataclass(frozen=True, slots=True)
class ImageKey:
    """`scope` stands for the scope in 16 bytes, `name` for scope and digest in 32."""

    scope: bytes = field(compare=False)
    name: bytes
    digest: bytes = field(compare=False)


def scope_id(scope: str) -> bytes:
    """The bytes that stand for a scope."""
    return hashlib.sha256(framed(SCHEMA, b"scope", scope.encode())).digest()[:_SCOPE_BYTES]


def image_key(scope: bytes, digest: bytes) -> ImageKey:
    """The key of an image in the scope that `scope_id` gave."""
    return ImageKey(scope, hashlib.sha256(framed(SCHEMA, scope, digest)).digest(), digest)
