"""Scores that are known already, by what they depend on.

Knows keys and fixed-size values, nothing of models or requests. Tiers are asked in order, and what a later tier knew is put into
the earlier ones; a tier that fails is a miss. Invariant: a key is the HMAC of a document under its question's key, itself an HMAC
over length-framed fields, so two pairs share a key only if all that decides their score is equal.
"""

from __future__ import annotations

import hmac
import math
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from service.contracts import Scored
from service.gateway.identity import framed, identity
from service.gateway.media import Content
from service.gateway.scoring import Question
from service.telemetry import CACHE_BYTES, CACHE_LOOKUPS

_SCHEMA = b"gmr-rerank score 1"
_VALUE = struct.Struct("<fII?")
_ENTRY_BYTES = 250
"""What an entry takes beside its key and value: the interpreter's objects and the index."""


def pair_keys(secret: bytes, question: Question, documents: Iterable[Content]) -> list[bytes]:
    """The key of a question with each document: equal exactly when all that decides the score is equal."""
    asked = (question.model.digest, question.instruction, question.cache_salt)
    fields = (_SCHEMA, *(each.encode() for each in asked), identity(question.query), bytes([question.truncate]))
    own = hmac.digest(secret, framed(*fields), "sha256")
    return [hmac.digest(own, identity(document), "sha256") for document in documents]


class Tier(Protocol):
    """One store of values by key. It may forget anything at any time; it never raises for a missing key."""

    name: str

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order."""
        ...

    async def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Remember the values."""
        ...


class MemoryTier:
    """The least recently used entries of this process, up to `max_bytes`."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._get(key) for key in keys]

    async def set_many(self, values: Mapping[bytes, bytes]) -> None:
        for key, value in values.items():
            self._bytes += _size(key, value) - _size(key, self._values.pop(key, None))
            self._values[key] = value
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._values.popitem(last=False))
        CACHE_BYTES.set(self._bytes)

    def _get(self, key: bytes) -> bytes | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value


def _size(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value) + _ENTRY_BYTES


class ScoreCache:
    """The tiers as one: `get_many` and `set_many` of scores."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tuple(tiers)

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Scored]:
        """The scores that some tier knows, by key."""
        found: dict[bytes, Scored] = {}
        missing = list(dict.fromkeys(keys))
        for place, tier in enumerate(self._tiers):
            values = await tier.get_many(missing)
            known = {key: value for key, value in zip(missing, values, strict=True) if value and _readable(value)}
            found |= {key: _read(value) for key, value in known.items()}
            missing = [key for key in missing if key not in known]
            CACHE_LOOKUPS.labels(tier.name, "hit").inc(len(known))
            CACHE_LOOKUPS.labels(tier.name, "miss").inc(len(missing))
            for earlier in self._tiers[:place]:
                await earlier.set_many(known)
            if not missing:
                break
        return found

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Remember scores in every tier."""
        values = {key: _write(score) for key, score in scores.items()}
        for tier in self._tiers:
            await tier.set_many(values)


def _write(score: Scored) -> bytes:
    return _VALUE.pack(score.logit, score.prompt_tokens, score.image_tokens, score.truncated)


def _readable(value: bytes) -> bool:
    return len(value) == _VALUE.size and math.isfinite(_VALUE.unpack(value)[0])


def _read(value: bytes) -> Scored:
    return Scored(*_VALUE.unpack(value))
