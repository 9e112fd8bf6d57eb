"""A score as bytes: bare in this process's own memory, sealed where others could write.

Knows fixed-size records, no tiers and no Redis. Invariant: a sealed value is opened only under the
key it was sealed for and by who holds the same secret; whatever else stands there is rejected with
a reason, never read as a score.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from typing import Literal

from service.wire import Scored

Rejection = Literal["schema", "size", "mac", "numbers"]
"""Why a value is not one of ours: another layout, another length, not sealed for this key by us, or
nonsense inside."""

SCHEMA = 1
"""The first byte of a sealed value: its layout."""
_BARE = struct.Struct("<fII?")
# schema, logit, prompt tokens, image tokens, truncated, written at (unix seconds)
_SEALED = struct.Struct("<BfIIBI")
_SEAL_BYTES = 16
SEALED_BYTES = _SEALED.size + _SEAL_BYTES
_LAST_SECOND = 2**32 - 1


def pack(score: Scored) -> bytes:
    """A score without its seal."""
    return _BARE.pack(score.logit, score.prompt_tokens, score.image_tokens, score.truncated)


def unpack(value: bytes) -> Scored:
    """What `pack` made."""
    return Scored(*_BARE.unpack(value))


class Seal:
    """Seals scores to their keys: a keyed BLAKE2b over key and record, so that no two keys' values
    can stand for each other.

    When a value was written is told to whoever looks into the store; nothing is decided by it, so
    no clock can change an answer.
    """

    def __init__(self, secret: bytes) -> None:
        own = hmac.digest(secret, b"gmr-rerank sealed score", "sha256")
        self._fresh = hashlib.blake2b(key=own, digest_size=_SEAL_BYTES)

    def close(self, key: bytes, score: Scored, written: float) -> bytes:
        """The value to keep under a key, of `SEALED_BYTES`. `written` is in seconds since 1970."""
        record = _SEALED.pack(
            SCHEMA,
            score.logit,
            score.prompt_tokens,
            score.image_tokens,
            score.truncated,
            min(max(int(written), 0), _LAST_SECOND),
        )
        return record + self._of(key, record)

    def open(self, key: bytes, value: object) -> Scored | Rejection:
        """The score that was sealed for the key, or why there is none."""
        if not isinstance(value, bytes) or not value:
            return "size"
        if value[0] != SCHEMA:
            return "schema"
        if len(value) != SEALED_BYTES:
            return "size"
        record = value[: _SEALED.size]
        if not hmac.compare_digest(self._of(key, record), value[_SEALED.size :]):
            return "mac"
        _, logit, prompt_tokens, image_tokens, truncated, _ = _SEALED.unpack(record)
        if not math.isfinite(logit) or truncated > 1 or image_tokens > prompt_tokens:
            return "numbers"
        return Scored(logit, prompt_tokens, image_tokens, bool(truncated))

    def _of(self, key: bytes, record: bytes) -> bytes:
        seal = self._fresh.copy()
        seal.update(key + record)  # the record's size is fixed: where the key ends is known
        return seal.digest()
