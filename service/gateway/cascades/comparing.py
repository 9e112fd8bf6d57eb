"""The online guard of cascades: a sample of requests is scored fully by the last stage in the
background, and the agreement of both orders is observed.

Depends on results, and on background turns, which no request waits for. Invariant: an answer never
waits for a comparison; at most `MAX_COMPARISONS` requests with `MAX_BYTES` of content wait or are
scored, and what exceeds that is left out and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

from model_store.cascades.agreement import discordance, overlap
from service.errors import DeadlineExceeded, RerankError
from service.gateway.admission.background import BackgroundQueue, BackgroundWork
from service.gateway.cascades.plan import Plan
from service.gateway.cascades.sampling import is_sampled
from service.gateway.domain import RerankResult
from service.gateway.media.content import Content, Picture, identity
from service.gateway.resolved_request import ResolvedRequest
from service.observability.cascade_metrics import (
    CASCADE_COMPARISONS,
    CASCADE_DISCORDANCE,
    CASCADE_OVERLAP,
)
from service.observability.logs import log
from service.observability.request_context import request_id, timed_request

MAX_COMPARISONS = 8
"""Requests that wait for their comparison or are compared at a time."""
MAX_BYTES = 2**27
"""Bytes that they hold together: items as they were sent, and images."""
SECONDS = 60.0
"""Time that the last stage has for the rest of a request."""


class LastStage(Protocol):
    """Scores and orders the documents of a request by the last stage of a cascade."""

    async def score_by_last(self, plan: Plan, request: ResolvedRequest) -> RerankResult: ...


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A request that was answered, and the bytes that it holds."""

    identity: str
    plan: Plan
    request: ResolvedRequest
    result: RerankResult
    size: int


class Comparisons:
    """Compares a `share` of the requests for cascades, chosen by `seed`.

    `is_loaded` is true while requests wait: nothing is begun then.
    """

    def __init__(
        self,
        background: BackgroundQueue,
        is_loaded: Callable[[], bool],
        *,
        share: float,
        seed: int,
    ) -> None:
        self._background = background
        self._is_loaded = is_loaded
        self._share = share
        self._seed = seed
        self._waiting: asyncio.Queue[_Comparison] = asyncio.Queue()
        self._count = 0
        self._bytes = 0

    def offer(self, plan: Plan, request: ResolvedRequest, result: RerankResult) -> None:
        """Take a request that was answered, if it is in the sample and there is room."""
        if len(result.ranked) < 2:
            return
        query = identity(next(iter(request.queries.values())))
        if not is_sampled(self._seed, self._share, request_id.get(), query):
            return

        size = _size(request)
        if size > MAX_BYTES:
            _count(plan, "too_large")
            return
        if self._count >= MAX_COMPARISONS or self._bytes + size > MAX_BYTES or self._is_loaded():
            _count(plan, "busy")
            return

        self._count += 1
        self._bytes += size
        comparison = _Comparison(request_id.get(), plan, request, result, size)
        self._waiting.put_nowait(comparison)

    async def run(self, last_stage: LastStage) -> NoReturn:
        """Compare one request after the other."""
        while True:
            comparison = await self._waiting.get()
            try:
                _count(comparison.plan, await self._outcome(comparison, last_stage))
            finally:
                self._count -= 1
                self._bytes -= comparison.size

    async def _outcome(self, comparison: _Comparison, last_stage: LastStage) -> str:
        """Compare a request, and return the outcome for the metric."""
        if self._is_loaded():
            return "busy"
        try:
            with timed_request(comparison.identity):
                await self._compare(comparison, last_stage)
        except RerankError:
            return "failed"
        except Exception as failure:
            name = comparison.plan.name
            log("comparison of a cascade failed", logging.ERROR, failure=failure, cascade=name)
            return "failed"
        return "compared"

    async def _compare(self, comparison: _Comparison, last_stage: LastStage) -> None:
        """Observe the agreement of the order that was answered with that of the last stage alone,
        over the documents that both have."""
        plan, answered = comparison.plan, comparison.result.ranked
        last = len(plan.stages)
        scores = {each.index: each.score.logit for each in answered if each.stage == last}
        rest = await last_stage.score_by_last(plan, self._rest(comparison))
        scores |= {each.index: each.score.logit for each in rest.ranked}

        alone = sorted(scores, key=lambda index: (-scores[index], index))
        cascade = [each.index for each in answered if each.index in scores]
        if any(isinstance(error, DeadlineExceeded) for _, error in rest.errors) or len(alone) < 2:
            raise DeadlineExceeded
        CASCADE_DISCORDANCE.labels(plan.name).observe(discordance(cascade, alone))
        CASCADE_OVERLAP.labels(plan.name).observe(overlap(alone, cascade))

    def _rest(self, comparison: _Comparison) -> ResolvedRequest:
        """The documents that the last stage has not scored, as background work."""
        request, last = comparison.request, len(comparison.plan.stages)
        rest = [each.index for each in comparison.result.ranked if each.stage != last]
        return replace(
            request,
            query=replace(request.query, skip_errors=True),
            queries={index: request.queries[index] for index in rest},
            documents={index: request.documents[index] for index in rest},
            errors={},
            deadline=asyncio.get_running_loop().time() + SECONDS,
            turns=BackgroundWork(self._background, request.turns.scope),
        )


def _count(plan: Plan, outcome: str) -> None:
    CASCADE_COMPARISONS.labels(plan.name, outcome).inc()


def _size(request: ResolvedRequest) -> int:
    """The bytes that a request holds: its items as they were sent, and its images."""
    sent = sum(
        len(part.text) + len(part.image) for item in request.query.items() for part in item.parts()
    )
    return sent + sum(map(_image_bytes, [*request.queries.values(), *request.documents.values()]))


def _image_bytes(content: Content) -> int:
    return sum(len(part.data) for part in content if isinstance(part, Picture))
