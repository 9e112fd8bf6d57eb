"""Scores by key, in tiers: this process's memory first, then stores that gateways share.

The module depends on keys and scores, on no model and no request. Tiers are read in order, and the
scores that a later tier has are written to the earlier ones. Invariant: a tier that fails counts as
one that has no score.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from service.gateway.cache.encoding import pack, unpack
from service.observability.metrics import CACHE_BYTES, CACHE_LIMIT_BYTES, CACHE_LOOKUPS
from service.wire import Scored

_ENTRY_OVERHEAD_BYTES = 250
"""Memory of an entry beside its key and value: the interpreter's objects and the index."""


class Tier(Protocol):
    """A store of scores by key. It may evict any entry at any time, and it raises nothing: a score
    that cannot be read is a miss."""

    name: str

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        """The score of each key, in order; None for a miss."""
        ...

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Store the scores."""
        ...


class MemoryTier:
    """The least recently used entries of this process, up to `max_bytes`."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        # values are bytes, which the garbage collector does not traverse
        self._values: OrderedDict[bytes, bytes] = OrderedDict()
        CACHE_LIMIT_BYTES.set(max_bytes)

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        return [self._get(key) for key in keys]

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        for key, score in scores.items():
            replaced = self._values.pop(key, None)
            if replaced is not None:
                self._bytes -= entry_bytes(key, replaced)
            value = self._values[key] = pack(score)
            self._bytes += entry_bytes(key, value)

        while self._bytes > self._max_bytes:
            self._bytes -= entry_bytes(*self._values.popitem(last=False))
        CACHE_BYTES.set(self._bytes)

    def _get(self, key: bytes) -> Scored | None:
        value = self._values.get(key)
        if value is None:
            return None
        self._values.move_to_end(key)
        return unpack(value)


def entry_bytes(key: bytes, value: bytes) -> int:
    """The memory that an entry of `MemoryTier` is charged with."""
    return len(key) + len(value) + _ENTRY_OVERHEAD_BYTES


class ScoreCache:
    """The tiers as one store, the nearest first."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tuple(tiers)

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Scored]:
        """The scores that some tier has, by key. All keys are of one scoring context."""
        found: dict[bytes, Scored] = {}
        missing = list(dict.fromkeys(keys))
        for number, tier in enumerate(self._tiers):
            if not missing:
                break

            hits = await _hits(tier, missing)
            found |= hits
            missing = [key for key in missing if key not in hits]
            CACHE_LOOKUPS.labels(tier.name, "hit").inc(len(hits))
            CACHE_LOOKUPS.labels(tier.name, "miss").inc(len(missing))
            for earlier in self._tiers[:number]:
                await earlier.set_many(hits)

        # another request may have scored a pair while the later tiers were read
        if missing and len(self._tiers) > 1:
            found |= await _hits(self._tiers[0], missing)
        return found

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Store scores in every tier."""
        for tier in self._tiers:
            await tier.set_many(scores)


async def _hits(tier: Tier, keys: Sequence[bytes]) -> dict[bytes, Scored]:
    scores = await tier.get_many(keys)
    return {key: score for key, score in zip(keys, scores, strict=True) if score is not None}
