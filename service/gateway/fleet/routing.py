"""Routing: the workers that the work of a request goes to, one or several.

Pure arithmetic on loads and hashes; depends on no worker, no HTTP and no clock. Invariant: the
order of a key's workers does not depend on workers that come and go, and no worker gets work while
another one is much less loaded.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence

IMBALANCE = 1.25
"""Load that a worker may have for the sake of its caches, as a multiple of the unavoidable load."""
SUFFIX_PER_PREFIX = 4
"""A share's own tokens must be this many times the prefix, which the worker of each share computes:
at most a fifth of a share's work is done twice."""
MIN_SHARE_TOKENS = 512
"""Smaller shares are not worth a call of their own."""


def hash_order(key: bytes, names: Sequence[str]) -> list[int]:
    """The indices of `names` in the order of a key, by rendezvous hashing: without one of the
    names, the order of the others is the same.

    `key` has at most 64 bytes.
    """
    weights = [hashlib.blake2b(name.encode(), key=key, digest_size=16).digest() for name in names]
    return sorted(range(len(names)), key=weights.__getitem__, reverse=True)


def within_bound(loads: Sequence[int], cost: int) -> int:
    """The first index whose load may grow by `cost`: to at most `IMBALANCE` times the unavoidable
    load.

    Unavoidable is the mean load with this cost, or the least load plus this cost, whichever is
    more; the least loaded worker is always within the bound.
    """
    unavoidable = max((sum(loads) + cost) / len(loads), min(loads) + cost)
    return next(index for index, load in enumerate(loads) if load + cost <= IMBALANCE * unavoidable)


def idle_enough(
    loads: Sequence[int], prefix: int, suffix: int, *, always: bool = False
) -> list[int]:
    """The indices of the workers that a request should be split over: as many as make it faster,
    none where splitting does not.

    A request of P prefix and S suffix tokens takes about P + S on one worker and P + S / W on W of
    them, which compute W - 1 prefixes more. So only workers with next to nothing to do take part,
    and only for shares much larger than the prefix; with `always`, for shares of any size.
    """
    min_share = 1 if always else max(SUFFIX_PER_PREFIX * prefix, MIN_SHARE_TOKENS)
    for count in range(len(loads), 1, -1):
        share = suffix // count
        if share < min_share:
            continue

        max_load = (IMBALANCE - 1) * (prefix + share)
        idle = [index for index, load in enumerate(loads) if load <= max_load]
        if len(idle) >= count:
            return idle[:count]
    return []


def balanced(costs: Sequence[int], count: int) -> list[list[int]]:
    """The indices of `costs` in `count` parts of about equal sum, each part in rising order; parts
    may be empty.

    Each cost, the largest first, goes to the part with the smallest sum. The sums of two parts
    differ by the largest cost at most.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    sums = [(0, part) for part in range(count)]  # a heap
    for index in sorted(range(len(costs)), key=costs.__getitem__, reverse=True):
        total, part = sums[0]
        parts[part].append(index)
        heapq.heapreplace(sums, (total + costs[index], part))
    return [sorted(part) for part in parts]
