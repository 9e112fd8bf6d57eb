"""Routing: the workers that the work of a request goes to, one or several.

Pure arithmetic on loads and hashes; depends on no worker, no HTTP and no clock. Invariant: the
order of a key's workers does not depend on workers that come and go, and no worker gets work while
another one is much less loaded.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence

IMBALANCE = 1.25
"""Load that a worker may have for the sake of its caches, as a multiple of the unavoidable load."""
SUFFIX_PER_PREFIX = 4
"""A share's own tokens must be this many times the prefix, which the worker of each share computes:
at most a fifth of a share's work is done twice."""
MIN_SHARE_TOKENS = 512
"""Smaller shares are not worth a call of their own."""
MIN_HOME_TOKENS = 128
"""A worker that is the home of fewer tokens of a request gets no call for them: the call takes
longer than to compute them elsewhere."""
_PRIME = 2**61 - 1


def hash_order(key: bytes, names: Sequence[str]) -> list[int]:
    """The indices of `names` in the order of a key, by rendezvous hashing: without one of the
    names, the order of the others is the same.

    `key` has at most 64 bytes.
    """
    weights = [hashlib.blake2b(name.encode(), key=key, digest_size=16).digest() for name in names]
    return sorted(range(len(names)), key=weights.__getitem__, reverse=True)


def home_orders(keys: Sequence[int], names: Sequence[str]) -> list[list[int]]:
    """The order of `names` for each of many keys of 64 evenly distributed bits, by rendezvous
    hashing as in `hash_order`.

    A name's weights are a linear function of the key modulo a prime, drawn by a hash of the name:
    half the time, or less, of a hash of each key with each name.
    """
    lines: list[tuple[int, int]] = []
    for name in names:
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        lines.append((int.from_bytes(digest[:8]), int.from_bytes(digest[8:])))

    orders: list[list[int]] = []
    for key in keys:
        weights = [(slope * key + offset) % _PRIME for slope, offset in lines]
        orders.append(sorted(range(len(names)), key=weights.__getitem__, reverse=True))
    return orders


def within_bound(loads: Sequence[int], cost: int, *, further: int = 0, saved: int = 0) -> int:
    """The first index whose load may grow by `cost`: to at most `IMBALANCE` times the unavoidable
    load, or to `saved` more than the least loaded worker's.

    Unavoidable is the mean load with this cost and `further` costs of the same request, or the
    least load plus this cost, whichever is more; the least loaded worker is always within the
    bound. `saved` is what the cost would grow by at any but the first index.
    """
    least = min(loads) + cost
    unavoidable = max((sum(loads) + cost + further) / len(loads), least)
    bound = max(IMBALANCE * unavoidable, least + saved)
    return next(index for index, load in enumerate(loads) if load + cost <= bound)


def placed_at_homes(
    orders: Sequence[Sequence[int]],
    loads: Sequence[int],
    costs: Sequence[int],
    tokens: Sequence[int],
    turns: Iterable[int],
) -> dict[int, list[int]]:
    """The documents of each worker, by index: each document in turn goes to the first worker in
    its order that is within the bound.

    A document that is not at home costs its `tokens` beside its cost, so a home may have that much
    more load than the least loaded worker, and the workers with documents of one request that much
    more than an even part.
    """
    left = list(loads)
    further = sum(costs)
    parts: dict[int, list[int]] = {}
    for document in turns:
        cost = costs[document]
        further -= cost
        order = orders[document]
        place = within_bound(
            [left[worker] for worker in order], cost, further=further, saved=tokens[document]
        )

        worker = order[place]
        left[worker] += cost
        parts.setdefault(worker, []).append(document)
    return {worker: sorted(part) for worker, part in parts.items()}


def without_small_parts(
    parts: dict[int, list[int]],
    orders: Sequence[Sequence[int]],
    tokens: Sequence[int],
    min_tokens: int,
) -> dict[int, list[int]]:
    """The same documents without parts of fewer than `min_tokens`, the smallest first: each of its
    documents goes to the next worker in its order that has a part. One part stays."""
    merged = {worker: list(part) for worker, part in parts.items()}
    sums = {worker: sum(tokens[index] for index in part) for worker, part in parts.items()}
    while len(merged) > 1:
        smallest = min(sums, key=sums.__getitem__)
        if sums[smallest] >= min_tokens:
            break

        del sums[smallest]
        for document in merged.pop(smallest):
            worker = next(worker for worker in orders[document] if worker in merged)
            merged[worker].append(document)
            sums[worker] += tokens[document]
    return {worker: sorted(part) for worker, part in merged.items()}


def sum_at_homes(orders: Sequence[Sequence[int]], tokens: Sequence[int], workers: int) -> list[int]:
    """The sum of the tokens of the documents whose order each of some workers is first in."""
    sums = [0] * workers
    for order, document_tokens in zip(orders, tokens, strict=True):
        sums[order[0]] += document_tokens
    return sums


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
