"""A share's place at a worker, and what is done when that worker fails or dawdles.

Knows workers one at a time and a way to the next; nothing of the whole fleet. Invariant: a call is
made at `ATTEMPTS` workers at most, and calls made again or twice stay within their budgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from service.errors import InvalidRequest, NoWorker, Overloaded, RerankError, WorkerFailed
from service.gateway.circuit_breaker import RetryBudget
from service.gateway.fleet.member import PoolMember
from service.gateway.fleet.routing import IMBALANCE
from service.observability.metrics import WORKER_EXTRA_CALLS
from service.wire import ScoreCall, ScoreReply

ATTEMPTS = 2
"""Workers that one call is made at."""
RETRY_SHARE = 0.2
RETRY_RESERVE = 64.0
"""As many calls as a worker takes at once by default: all that one had may be made good elsewhere
when it dies."""
HEDGE_SHARE = 0.05
HEDGE_RESERVE = 2.0

Next = Callable[[Collection[PoolMember], int], PoolMember | None]
"""The worker that a cost goes to when some have been tried; none tried yet: any that serves the
model."""


def _retries() -> RetryBudget:
    return RetryBudget(share=RETRY_SHARE, reserve=RETRY_RESERVE)


def _hedges() -> RetryBudget:
    return RetryBudget(share=HEDGE_SHARE, reserve=HEDGE_RESERVE)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How much more than once calls may be made, of all seats together; without `hedge_seconds`
    none is made twice at once."""

    hedge_seconds: float = 0.0
    retries: RetryBudget = field(default_factory=_retries)
    hedges: RetryBudget = field(default_factory=_hedges)

    def first(self) -> None:
        """Count a call that is made for the first time."""
        self.retries.earn()
        self.hedges.earn()

    def retry(self) -> bool:
        """Whether a call that failed may be made again."""
        return _counted("retry", self.retries.spend())

    def hedge(self) -> bool:
        """Whether a call that is not answered yet may be made a second time."""
        return _counted("hedge", self.hedges.spend())


def _counted(kind: str, allowed: bool) -> bool:
    WORKER_EXTRA_CALLS.labels(kind if allowed else "denied").inc()
    return allowed


class ShareDispatch:
    """A share's place at a worker, whose load it is. Where the worker fails, the seat moves to the
    next."""

    def __init__(
        self, worker: PoolMember, model: str, cost: int, following: Next, again: RetryPolicy
    ) -> None:
        self._worker = worker
        self._model = model
        self._cost = cost
        self._next = following
        self._again = again
        worker.load += cost

    async def score(self, call: ScoreCall, cost: int, until: float) -> ScoreReply:
        """Have the seat's worker answer before `until` (event loop time); if it fails or has no
        room, one other.

        `cost` is what of the seat's own is done when the call is answered. Raises what was said
        last, `WorkerFailed` where the call was refused, which no other worker would take either,
        and `NoWorker` where there is nobody to ask, or nobody left once a worker has gone. A call
        that two workers went away from may be the reason: that is `WorkerFailed`.
        """
        worker = self._pick_worker(())
        if worker is None:
            raise NoWorker
        self._again.first()
        tried = [worker]
        try:
            reply = await self._ask(worker, call, until, tried)
        except (WorkerFailed, NoWorker, Overloaded) as failure:
            reply = await self._elsewhere(call, until, tried, failure)
        except InvalidRequest:
            raise WorkerFailed from None
        self._give_back(cost)
        return reply

    async def _elsewhere(
        self, call: ScoreCall, until: float, tried: list[PoolMember], failure: RerankError
    ) -> ScoreReply:
        """The reply of one other worker, after a first failure."""
        other = self._pick_worker(tried) if len(tried) < ATTEMPTS else None
        if other is None or not self._again.retry():
            # in doubt: it has gone, or it was this call alone
            if tried[-1].model(self._model) is None:
                await tried[-1].probe()
            raise NoWorker if self._nobody_left() else failure
        try:
            return await other.call(call, until)
        except WorkerFailed:
            if isinstance(failure, NoWorker) and self._nobody_left():
                raise NoWorker from None
            raise

    def _nobody_left(self) -> bool:
        return self._next((), self._cost) is None

    def leave(self) -> None:
        """Take what is left of the seat's cost off the worker's load."""
        self._give_back(self._cost)

    def _pick_worker(self, tried: Collection[PoolMember]) -> PoolMember | None:
        """The seat's worker. If it was tried, or is not to be asked, the seat moves first; None:
        there is nobody left."""
        here = self._worker
        serves = here not in tried and here.model(self._model) is not None
        if serves and here.admits():
            return here
        following = self._next([here, *tried] if serves else tried, self._cost)
        if following is None:
            return here if serves and not tried else None
        here.load -= self._cost
        following.load += self._cost
        self._worker = following
        return following

    async def _ask(
        self, worker: PoolMember, call: ScoreCall, until: float, tried: list[PoolMember]
    ) -> ScoreReply:
        """The worker's reply; where that takes long and another worker is all but idle, that of
        whichever is first."""
        if not self._again.hedge_seconds:
            return await worker.call(call, until)
        asked = [asyncio.create_task(worker.call(call, until))]
        try:
            await asyncio.wait(asked, timeout=self._again.hedge_seconds)
            if not asked[0].done() and (other := self._idle(tried)) and self._again.hedge():
                tried.append(other)
                asked.append(asyncio.create_task(self._also(other, call, until)))
            return await _first_good(asked)
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _also(self, worker: PoolMember, call: ScoreCall, until: float) -> ScoreReply:
        cost = self._cost
        worker.load += cost
        try:
            return await worker.call(call, until)
        finally:
            worker.load -= cost

    def _idle(self, tried: Collection[PoolMember]) -> PoolMember | None:
        other = self._next(tried, self._cost)
        return other if other and other.load <= (IMBALANCE - 1) * self._cost else None

    def _give_back(self, cost: int) -> None:
        cost = min(cost, self._cost)
        self._cost -= cost
        self._worker.load -= cost


async def _first_good(asked: Collection[asyncio.Task[ScoreReply]]) -> ScoreReply:
    """The first reply of several; where all fail, the last failure."""
    failure: RerankError = NoWorker()
    for answered in asyncio.as_completed(asked):
        try:
            return await answered
        except RerankError as error:
            failure = error
    raise failure
