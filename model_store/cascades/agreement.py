"""The agreement of two orders of the same documents: Kendall's tau, and the overlap of the best
ten.

Depends on orders alone: publishing and serving call the same functions. Invariant: both are
symmetric, and equal orders agree in full.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

BEST = 10


def discordance(first: Sequence[int], second: Sequence[int]) -> float:
    """The share of pairs of documents that two orders have the other way round, 0 to 1.

    Kendall's tau is 1 - 2 times it (Kendall 1938). The orders have the same documents, at least
    two.
    """
    rank = {document: position for position, document in enumerate(second)}
    before: list[int] = []
    swapped = 0
    for document in first:
        position = bisect_left(before, rank[document])
        swapped += len(before) - position
        insort(before, rank[document])

    pairs = len(before) * (len(before) - 1) / 2
    return swapped / pairs


def overlap(first: Sequence[int], second: Sequence[int]) -> float:
    """The share of the best ten documents of one order that are among those of the other; of all,
    where there are fewer."""
    best = min(BEST, len(first))
    return len({*first[:best]} & {*second[:best]}) / best
