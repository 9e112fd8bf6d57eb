"""Scores that are known already, by what they depend on.

Knows keys and scores, nothing of models or requests. Tiers are asked in order, and what a later
tier knew is put into the earlier ones; a tier that fails is a miss. Invariant: a key is the HMAC of
a document under its question's key, itself an HMAC over length-framed fields, so two pairs share a
key only if all that decides their score is equal.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Protocol

from service.gateway.cache.encoding import pack, unpack
from service.gateway.domain import ScoringContext
from service.gateway.media.content import Content, framed, identity
from service.observability.metrics import CACHE_BYTES, CACHE_LIMIT_BYTES, CACHE_LOOKUPS
from service.wire import Scored

SCHEMA = b"gmr-rerank score 2"
"""To be counted up when the same fields come to mean another score, as by another way to resize
images."""
TAG_BYTES = 4
"""The first bytes of a key, which all keys of a question share: a tier may keep them in one place.
"""
_DECODER = f"pillow {version('pillow')}".encode()
"""What turns sent bytes into pixels: done here, so no worker's digest tells of it."""
_ENTRY_BYTES = 250
"""What an entry takes beside its key and value: the interpreter's objects and the index."""


def pair_keys(secret: bytes, question: ScoringContext, documents: Iterable[Content]) -> list[bytes]:
    """The key of a question with each document: equal exactly when all that decides the score is
    equal.

    The model's digest stands for weights, template, limits, dtype and engine; the rest of what
    decides a score is beside it.
    """
    model, rule = question.model, question.model.images
    pixels = b""
    if rule is not None:
        pixels = b"%d %d %d " % (rule.cell, rule.min_pixels, rule.max_pixels) + _DECODER
    asked = (model.digest, question.cache_salt, question.instruction)
    fields = (
        SCHEMA,
        pixels,
        *(each.encode() for each in asked),
        identity(question.query),
        bytes([question.truncate]),
    )
    own = hmac.digest(secret, framed(*fields), "sha256")
    # no document is nothing: this tells nothing of any other key
    tag = hmac.digest(own, b"", "sha256")[:TAG_BYTES]
    return [tag + hmac.digest(own, identity(document), "sha256") for document in documents]


class Tier(Protocol):
    """One store of scores by key. It may forget anything at any time, and it never fails: what it
    cannot tell is a miss."""

    name: str

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        """The score of each key, in order."""
        ...

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Remember the scores."""
        ...


class MemoryTier:
    """The least recently used entries of this process, up to `max_bytes`."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        CACHE_LIMIT_BYTES.set(max_bytes)
        # bytes, because the garbage collector need not look at them
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        return [self._get(key) for key in keys]

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        for key, score in scores.items():
            value = pack(score)
            self._bytes += _size(key, value) - _size(key, self._values.pop(key, None))
            self._values[key] = value
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._values.popitem(last=False))
        CACHE_BYTES.set(self._bytes)

    def _get(self, key: bytes) -> Scored | None:
        value = self._values.get(key)
        if value is None:
            return None
        self._values.move_to_end(key)
        return unpack(value)


def _size(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value) + _ENTRY_BYTES


class ScoreCache:
    """The tiers as one, the nearest first: `get_many` and `set_many` of scores."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tuple(tiers)

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Scored]:
        """The scores that some tier knows, by key. All keys are of one question."""
        found: dict[bytes, Scored] = {}
        missing = list(dict.fromkeys(keys))
        for place, tier in enumerate(self._tiers):
            if not missing:
                break
            known = await _known(tier, missing)
            found |= known
            missing = [key for key in missing if key not in known]
            CACHE_LOOKUPS.labels(tier.name, "hit").inc(len(known))
            CACHE_LOOKUPS.labels(tier.name, "miss").inc(len(missing))
            for earlier in self._tiers[:place]:
                await earlier.set_many(known)
        if missing and len(self._tiers) > 1:  # what was scored here while the others were asked
            found |= await _known(self._tiers[0], missing)
        return found

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Remember scores in every tier."""
        for tier in self._tiers:
            await tier.set_many(scores)


async def _known(tier: Tier, keys: Sequence[bytes]) -> dict[bytes, Scored]:
    scores = await tier.get_many(keys)
    return {key: score for key, score in zip(keys, scores, strict=True) if score is not None}
