"""Where the work of a request goes: one worker or several, and which.

Pure arithmetic over loads and hashes; knows no worker, no HTTP and no clock. Invariant: a key's
workers stand in one order whatever other workers come and go, and nobody gets work while someone
else is much less loaded.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence

IMBALANCE = 1.25
"""How much more than unavoidable a worker may be loaded for the sake of what it has cached."""
SUFFIX_PER_PREFIX = 4
"""A share's own tokens must be this many times the prefix, which each share's worker computes anew:
at most a fifth of a share is computed twice."""
MIN_SHARE_TOKENS = 512
"""Smaller shares are not worth a call of their own."""


def hash_order(key: bytes, names: Sequence[str]) -> list[int]:
    """The places of `names` in the order of a key (rendezvous hashing): without one of them, the
    others stand as they stood.

    `key` has at most 64 bytes.
    """
    weights = [hashlib.blake2b(name.encode(), key=key, digest_size=16).digest() for name in names]
    return sorted(range(len(names)), key=weights.__getitem__, reverse=True)


def within_bound(loads: Sequence[int], cost: int) -> int:
    """The first place that may take `cost` more: it ends at most `IMBALANCE` times above what is
    unavoidable.

    That is the mean load including this cost, or this cost on top of the least loaded, whichever is
    more; so somebody always may.
    """
    unavoidable = max((sum(loads) + cost) / len(loads), min(loads) + cost)
    return next(place for place, load in enumerate(loads) if load + cost <= IMBALANCE * unavoidable)


def idle_enough(
    loads: Sequence[int], prefix: int, suffix: int, *, always: bool = False
) -> list[int]:
    """The places that a request is split over, as many as make it faster; fewer than two: do not
    split it.

    A request of P prefix and S suffix tokens takes about P + S on one worker and P + S / W on W of
    them, and W - 1 prefixes more are computed. So only workers with next to nothing to do take
    part, and only for shares that dwarf the prefix (`always`: for any).
    """
    least = 1 if always else max(SUFFIX_PER_PREFIX * prefix, MIN_SHARE_TOKENS)
    for count in range(len(loads), 1, -1):
        share = suffix // count
        if share < least:
            continue
        idle = [
            place for place, load in enumerate(loads) if load <= (IMBALANCE - 1) * (prefix + share)
        ]
        if len(idle) >= count:
            return idle[:count]
    return []


def balanced(costs: Sequence[int], count: int) -> list[list[int]]:
    """The indices of `costs` in `count` parts of about equal sum, each part in rising order; parts
    may be empty.

    The largest first, each to the part that has least so far: no part is more than the largest cost
    above another.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    heap = [(0, part) for part in range(count)]
    for index in sorted(range(len(costs)), key=costs.__getitem__, reverse=True):
        total, part = heap[0]
        parts[part].append(index)
        heapq.heapreplace(heap, (total + costs[index], part))
    return [sorted(part) for part in parts]
