"""Dispatch of one share of a request: the worker that its calls go to, retries and hedges.

Depends on single workers and on a way to pick the next one, not on the pool. Invariant: a call is
made at `ATTEMPTS` workers at most, and retries and hedges stay within their budgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

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
"""As many calls as a worker takes at once by default: all calls of a worker that dies can be
retried."""
HEDGE_SHARE = 0.05
HEDGE_RESERVE = 2.0


class Calls(Protocol):
    """One call, as each worker needs it."""

    async def to(self, worker: PoolMember) -> ScoreCall | None:
        """The call to a worker; None where there is nothing to score."""
        ...

    def suits(self, worker: PoolMember) -> bool:
        """True if the last call that was made for a worker may go to this one as well."""
        ...


PickWorker = Callable[[Collection[PoolMember], int], PoolMember | None]
"""Picks the worker for some cost, of those that have not been tried; None where none is left.

With none tried, every worker that serves the model is eligible.
"""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The budgets of a pool for retries and hedges.

    A hedge is a second call, made where the first has no reply after `hedge_seconds`; 0 for none.
    """

    retries: RetryBudget
    hedges: RetryBudget
    hedge_seconds: float = 0.0

    def count_first_attempt(self) -> None:
        """Count the first attempt of a call: it earns a share of a retry and of a hedge."""
        self.retries.earn()
        self.hedges.earn()

    def may_retry(self) -> bool:
        """True if the budget pays for a retry; the retry is counted."""
        return _counted("retry", self.retries.spend())

    def may_hedge(self) -> bool:
        """True if the budget pays for a hedge; the hedge is counted."""
        return _counted("hedge", self.hedges.spend())


def _counted(kind: str, allowed: bool) -> bool:
    WORKER_EXTRA_CALLS.labels(kind if allowed else "denied").inc()
    return allowed


class ShareDispatch:
    """The calls of one share: some of a workload's `documents`, by index. Their cost is part of the
    load of the worker that they go to; where that worker fails, the rest of the share moves to the
    next one."""

    def __init__(
        self,
        worker: PoolMember,
        model: str,
        documents: Sequence[int],
        cost: int,
        pick_worker: PickWorker,
        retry_policy: RetryPolicy,
    ) -> None:
        self.documents = documents
        self._worker = worker
        self._model = model
        self._cost = cost
        self._pick_worker = pick_worker
        self._retry_policy = retry_policy
        worker.load += cost

    @property
    def worker(self) -> PoolMember:
        """The worker that the next call goes to, if it is still ready then."""
        return self._worker

    async def score(self, calls: Calls, cost: int, deadline: float) -> ScoreReply | None:
        """A worker's reply before `deadline` (event loop time); one other worker is tried where
        the first fails or is overloaded. None where there is nothing to score.

        `cost` is taken off the share's cost once the call is answered. Raises the last error.
        `WorkerFailed` where a worker refused the call itself, which no other worker would take
        either, and where two workers failed during the call, which may be the reason. `NoWorker`
        where no worker is left. Exceptions of `calls` are raised as they are.
        """
        worker, call = await self._first_call(calls)
        if call is None:
            self._release(cost)
            return None

        self._retry_policy.count_first_attempt()
        tried = [worker]
        try:
            reply: ScoreReply | None = await self._call(worker, call, calls, deadline, tried)
        except (WorkerFailed, NoWorker, Overloaded) as failure:
            reply = await self._retry(calls, deadline, tried, failure)
        except InvalidRequest:
            raise WorkerFailed from None

        self._release(cost)
        return reply

    def close(self) -> None:
        """Take the rest of the share's cost off its worker's load."""
        self._release(self._cost)

    async def _first_call(self, calls: Calls) -> tuple[PoolMember, ScoreCall | None]:
        """The worker of the first attempt, and its call; raises `NoWorker`.

        A worker that is lost while its call is made is replaced once.
        """
        worker = self._next_worker(())
        if worker is None:
            raise NoWorker

        call = await calls.to(worker)
        current = self._next_worker(())
        if current is None:
            raise NoWorker
        if current is not worker:
            call = await calls.to(current)
        return current, call

    async def _retry(
        self, calls: Calls, deadline: float, tried: list[PoolMember], failure: RerankError
    ) -> ScoreReply | None:
        """The reply of one other worker; raises `failure` where none may be tried."""
        worker = self._next_worker(tried) if len(tried) < ATTEMPTS else None
        if worker is None or not self._retry_policy.may_retry():
            # the last worker may be gone, or only this call failed: a probe settles it
            if tried[-1].model(self._model) is None:
                await tried[-1].probe()
            raise NoWorker if self._none_left() else failure

        call = await calls.to(worker)
        if call is None:
            return None
        try:
            return await worker.call(call, deadline)
        except InvalidRequest:
            raise WorkerFailed from None
        except WorkerFailed:
            if isinstance(failure, NoWorker) and self._none_left():
                raise NoWorker from None
            raise

    def _none_left(self) -> bool:
        return self._pick_worker((), self._cost) is None

    def _next_worker(self, tried: Collection[PoolMember]) -> PoolMember | None:
        """The worker of the next attempt: the current one if it is still eligible, else the next
        one, which the share moves to; None where none is left."""
        current = self._worker
        eligible = current not in tried and current.model(self._model) is not None
        if eligible and current.admits():
            return current

        others_than = [current, *tried] if eligible else tried
        following = self._pick_worker(others_than, self._cost)
        if following is None:
            # a worker with an open breaker is better than none, for a first attempt
            return current if eligible and not tried else None

        current.load -= self._cost
        following.load += self._cost
        self._worker = following
        return following

    async def _call(
        self,
        worker: PoolMember,
        call: ScoreCall,
        calls: Calls,
        deadline: float,
        tried: list[PoolMember],
    ) -> ScoreReply:
        """The worker's reply; if it takes long and another worker is idle, the first reply of
        both."""
        hedge_seconds = self._retry_policy.hedge_seconds
        if not hedge_seconds:
            return await worker.call(call, deadline)

        attempts = [asyncio.create_task(worker.call(call, deadline))]
        try:
            await asyncio.wait(attempts, timeout=hedge_seconds)
            if not attempts[0].done():
                idle = self._idle_worker(tried)
                if idle is not None and calls.suits(idle) and self._retry_policy.may_hedge():
                    tried.append(idle)
                    attempts.append(asyncio.create_task(self._hedge(idle, call, deadline)))
            return await _first_reply(attempts)
        finally:
            for task in attempts:
                task.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    async def _hedge(self, worker: PoolMember, call: ScoreCall, deadline: float) -> ScoreReply:
        """The same call at a second worker, which has the share's load for that time."""
        cost = self._cost
        worker.load += cost
        try:
            return await worker.call(call, deadline)
        finally:
            worker.load -= cost

    def _idle_worker(self, tried: Collection[PoolMember]) -> PoolMember | None:
        """The next worker, if it has next to nothing to do."""
        worker = self._pick_worker(tried, self._cost)
        if worker is None or worker.load > (IMBALANCE - 1) * self._cost:
            return None
        return worker

    def _release(self, cost: int) -> None:
        cost = min(cost, self._cost)
        self._cost -= cost
        self._worker.load -= cost


async def _first_reply(calls: Collection[asyncio.Task[ScoreReply]]) -> ScoreReply:
    """The first reply of several calls; raises the last error where all of them fail."""
    failure: RerankError = NoWorker()
    for call in asyncio.as_completed(calls):
        try:
            return await call
        except RerankError as error:
            failure = error
    raise failure
