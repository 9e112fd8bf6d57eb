"""The work of a request as routing sees it, and its division into shares, each for one worker.

Depends on keys, tokens and loads, not on workers or calls. Invariant: every document is in exactly
one share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.gateway.fleet.routing import (
    MIN_HOME_TOKENS,
    balanced,
    hash_order,
    home_orders,
    idle_enough,
    placed_at_homes,
    sum_at_homes,
    within_bound,
    without_small_parts,
)
from service.wire import WorkerInfo

Split = Literal["auto", "always", "never"]
"""Splitting of a request over several workers: where that is faster, wherever several are idle, or
never.

Documents with homes of their own: over the homes that get enough tokens for a call, over all of
them, or never.
"""


@dataclass(frozen=True, slots=True)
class Homes:
    """The keys of documents that prompts begin with, equal for equal beginnings (64 bits), and the
    tokens that a worker computes of each document if it does not have them."""

    keys: Sequence[int]
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of a request as routing sees it: a model, a key that is equal for equal prefixes,
    and the tokens of the prefix and of each document.

    The key is None where the documents of the request share no prefix. `homes` are of documents
    whose prompts share a prefix with those of later requests.
    """

    model: WorkerInfo
    key: bytes | None
    prefix: int
    suffixes: Sequence[int]
    homes: Homes | None = None

    def part(self, documents: Sequence[int]) -> Workload:
        """The work of some of the documents, by index."""
        homes = None
        if self.homes is not None:
            keys, tokens = self.homes.keys, self.homes.tokens
            homes = Homes([keys[index] for index in documents], [tokens[i] for i in documents])
        suffixes = [self.suffixes[index] for index in documents]
        return Workload(self.model, self.key, self.prefix, suffixes, homes)

    def order(self, names: Sequence[str]) -> list[int] | None:
        """The indices of workers, by name, in order of preference: of the key, or by the tokens of
        the documents that are at home; None where all are equal."""
        if self.homes is not None:
            orders = home_orders(self.homes.keys, names)
            at_home = sum_at_homes(orders, self.homes.tokens, len(names))
            # workers that are no document's home come in the order of one document
            return sorted(orders[0], key=at_home.__getitem__, reverse=True)
        return None if self.key is None else hash_order(self.key, names)


@dataclass(frozen=True, slots=True)
class Share:
    """Documents of a workload, by index, and the index of the worker that they go to."""

    worker: int
    documents: Sequence[int]


def shares_at_homes(
    homes: Homes, costs: Sequence[int], names: Sequence[str], loads: Sequence[int], split: Split
) -> list[Share]:
    """The shares of documents that go to their homes among some workers, of names and loads."""
    orders = home_orders(homes.keys, names)
    # in the order of keys, so that a document's worker does not depend on its rank
    turns = sorted(range(len(orders)), key=homes.keys.__getitem__)
    parts = placed_at_homes(orders, loads, costs, homes.tokens, turns)
    if split == "auto":
        parts = without_small_parts(parts, orders, homes.tokens, MIN_HOME_TOKENS)
    return [Share(worker, documents) for worker, documents in sorted(parts.items())]


def even_shares(
    workload: Workload, loads: Sequence[int], split: Split, *, affinity: bool
) -> list[Share]:
    """Shares of about equal cost for several idle workers, or one share for one worker.

    `loads` are in the order of preference that the workload has.
    """
    chosen: list[int] = []
    suffix = sum(workload.suffixes)
    if split != "never":
        idle = idle_enough(loads, workload.prefix, suffix, always=split == "always")
        chosen = idle[: len(workload.suffixes)]
    if len(chosen) < 2:
        chosen = [within_bound(loads, workload.prefix + suffix)] if affinity else [0]

    parts = balanced(workload.suffixes, len(chosen))
    return [Share(worker, part) for worker, part in zip(chosen, parts, strict=True)]
