"""Scores as bytes: plain in this process's memory, authenticated in a store that others can write
to.

The module depends on fixed-size records, on no tier and no Redis. Invariant: an authenticated value
decodes only under the key and the secret that it was encoded with; any other value is rejected with
a reason and never read as a score.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from typing import Literal

from service.wire import Scored

Rejection = Literal["schema", "size", "mac", "numbers"]
"""The reason why a value is rejected: another layout, another length, an authentication code that
does not match, or numbers that no score has."""

SCHEMA = 1
"""The layout of an authenticated value, which is its first byte."""
_PLAIN = struct.Struct("<fII?")
# schema, logit, prompt tokens, image tokens, truncated, time of writing (Unix seconds)
_RECORD = struct.Struct("<BfIIBI")
_MAC_BYTES = 16
ENCODED_BYTES = _RECORD.size + _MAC_BYTES
_MAX_TIME = 2**32 - 1


def pack(score: Scored) -> bytes:
    """A score as bytes without authentication."""
    return _PLAIN.pack(score.logit, score.prompt_tokens, score.image_tokens, score.truncated)


def unpack(value: bytes) -> Scored:
    """The score that `pack` was given."""
    return Scored(*_PLAIN.unpack(value))


class ScoreCodec:
    """Encodes scores with a message authentication code, a keyed BLAKE2b over key and record.

    The code covers the key, so that the value of one key is rejected under another. The time of
    writing is for operators who inspect the store; no decision depends on it, so a wrong clock
    changes no answer.
    """

    def __init__(self, secret: bytes) -> None:
        mac_key = hmac.digest(secret, b"gmr-rerank sealed score", "sha256")
        self._keyed = hashlib.blake2b(key=mac_key, digest_size=_MAC_BYTES)

    def encode(self, key: bytes, score: Scored, written_at: float) -> bytes:
        """The value of a key, `ENCODED_BYTES` long; `written_at` is in seconds since 1970."""
        record = _RECORD.pack(
            SCHEMA,
            score.logit,
            score.prompt_tokens,
            score.image_tokens,
            score.truncated,
            min(max(int(written_at), 0), _MAX_TIME),
        )
        return record + self._mac(key, record)

    def decode(self, key: bytes, value: object) -> Scored | Rejection:
        """The score that was encoded for the key, or the reason why the value is rejected."""
        if not isinstance(value, bytes) or not value:
            return "size"
        if value[0] != SCHEMA:
            return "schema"
        if len(value) != ENCODED_BYTES:
            return "size"

        record, mac = value[: _RECORD.size], value[_RECORD.size :]
        if not hmac.compare_digest(self._mac(key, record), mac):
            return "mac"

        _, logit, prompt_tokens, image_tokens, truncated, _ = _RECORD.unpack(record)
        if not math.isfinite(logit) or truncated > 1 or image_tokens > prompt_tokens:
            return "numbers"
        return Scored(logit, prompt_tokens, image_tokens, bool(truncated))

    def _mac(self, key: bytes, record: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(key + record)  # unambiguous, because the record's size is fixed
        return mac.digest()
