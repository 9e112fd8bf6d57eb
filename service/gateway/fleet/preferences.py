"""Preferences among workers: which of several eligible ones a call should go to.

Depends on the state of each worker, not on loads or keys. Invariant: preferences narrow a choice
and never empty it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from service.gateway.fleet.member import PoolMember
from service.wire import WorkerInfo

Preference = Callable[[list[PoolMember]], list[PoolMember]]
"""From workers to the preferred ones among them, perhaps none."""


def prefer(workers: list[PoolMember], *preferences: Preference) -> list[PoolMember]:
    """Narrow workers down by one preference after the other; a preference that leaves none is
    skipped."""
    for preference in preferences:
        preferred = preference(workers)
        if preferred:
            workers = preferred
    return workers


def admitting(workers: list[PoolMember]) -> list[PoolMember]:
    """The workers whose breaker admits a call."""
    return [worker for worker in workers if worker.admits()]


def of_one_digest(model: WorkerInfo, workers: list[PoolMember]) -> list[PoolMember]:
    """The workers that serve a model in its own digest or, where none does, in the digest that most
    of them have."""
    digests: dict[PoolMember, str] = {}
    for worker in workers:
        served = worker.model(model.model)
        if served is not None:
            digests[worker] = served.digest

    chosen = prevalent(list(digests.values()), model.digest)
    return [worker for worker, digest in digests.items() if digest == chosen]


def responsive(workers: list[PoolMember]) -> list[PoolMember]:
    """The workers that answered their last probe."""
    return [worker for worker in workers if not worker.unresponsive()]


def prevalent(digests: Sequence[str], preferred: str | None) -> str | None:
    """The preferred digest if it is among them, else the most frequent one, the first of equals;
    of versions, too."""
    if preferred in digests:
        return preferred
    counts = Counter(digests)
    return max(counts, key=counts.__getitem__, default=None)
