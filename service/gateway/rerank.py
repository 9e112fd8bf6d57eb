"""One rerank request: resolve its contents, look up known scores, score the misses, remember them,
order.

Holds the order of these steps alone: media, cache, scoring and single flight do the work.
Invariant: one answer never mixes scores of two model digests, and every document of a request is
either ranked or listed with its error.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import anyio.to_thread
from msgspec import structs

from service.errors import BadRequest, WorkerFailed
from service.gateway.cache.keys import pair_keys
from service.gateway.cache.score_cache import ScoreCache
from service.gateway.calibrations import expect_calibrated
from service.gateway.domain import Documents, PairOutcome, RerankQuery, RerankResult, ScoringContext
from service.gateway.fleet.pool import WorkerPool
from service.gateway.media.content import Content
from service.gateway.media.reader import Media
from service.gateway.media.references import StoredImages
from service.gateway.modalities import expect_readable
from service.gateway.ordering import ordered, raise_first
from service.gateway.parsing.items import RequestContents, expect_known_images
from service.gateway.query_groups import QUERIES_AT_ONCE, QueryGroup, is_of_query, score_groups
from service.gateway.resolved_request import ResolvedRequest
from service.gateway.scoring import Scoring
from service.gateway.single_flight import FlightResult, Score, SingleFlight
from service.gateway.turns import UNBOUNDED, Turns
from service.observability.request_context import stage
from service.wire import Scored, WorkerInfo

FindModel = Callable[[str | None], WorkerInfo]
"""Finds a model; of several digests that workers have it in, the given one is preferred."""


class Reranker:
    """Answers rerank queries with the scores of a cache and of workers.

    `secret` keys the cache, so that no key can be computed outside of the service.
    """

    def __init__(
        self,
        pool: WorkerPool,
        media: Media,
        cache: ScoreCache,
        scoring: Scoring,
        single_flight: SingleFlight,
        *,
        secret: bytes,
    ) -> None:
        self._pool = pool
        self._media = media
        self._cache = cache
        self._scoring = scoring
        self._single_flight = single_flight
        self._secret = secret

    def expected_part(self, model: WorkerInfo, scope: str) -> float:
        """The part of a request's cost that is expected to be computed, for a scope (tenant)."""
        return self._scoring.expected_part(model, scope)

    async def rerank(
        self,
        query: RerankQuery,
        deadline: float,
        *,
        scope: str = "",
        turns: Turns = UNBOUNDED,
    ) -> RerankResult:
        """Score and order the documents of a query before `deadline` (event loop time).

        Scores are shared within a `scope` (a tenant). Scoring waits for `turns`. A model that is
        replaced during the request is scored by once more, for all documents and with the same
        contents. Raises a `RerankError` where the request fails, `WorkerFailed` where the model is
        replaced a second time.
        """
        model = self._pool.model(query.model)
        request = await self.read(query, model, deadline, scope=scope, turns=turns)
        return await self.score(request, partial(self._pool.model, query.model))

    async def read(
        self, query: RerankQuery, model: WorkerInfo, deadline: float, *, scope: str, turns: Turns
    ) -> ResolvedRequest:
        """The contents of a query that `model` can read, with the bounds of its answer."""
        # while the request waited, the model may have been replaced by one that reads text only, or
        # that has no calibration
        expect_calibrated(query, model)
        query = expect_readable(query, model)
        stored = self._media.stored(scope)
        contents = await self._resolve(query, deadline, stored)
        return ResolvedRequest(
            query,
            contents.queries,
            contents.documents,
            contents.errors,
            deadline,
            self._cache_salt(scope),
            turns,
            stored,
        )

    async def score(self, request: ResolvedRequest, find: FindModel) -> RerankResult:
        """Score and order the documents of a request with one digest of the model that `find`
        finds; it is asked again where the model is replaced."""
        try:
            return await self._attempt(find(None), request)
        except _ModelReplaced as replaced:
            model = find(replaced.digest)

        try:
            return await self._attempt(model, request.for_new_model(model))
        except _ModelReplaced:
            raise WorkerFailed from None

    async def _attempt(self, model: WorkerInfo, request: ResolvedRequest) -> RerankResult:
        """Score and order with one digest of the model; raises `_ModelReplaced` where the workers
        have another one by now."""
        groups = await self._groups(model, request)
        keys: dict[int, bytes] = {}
        for group in groups:
            keys |= group.keys

        known = await self._look_up(keys.values(), request)
        scored = await self._score(groups, known, request)
        digest = _single_digest(model, known, scored)
        if digest == model.digest:
            await self._remember(scored.fresh, request)

        served = _served(model, digest, query=request.query)
        return ordered(served, request, keys, known, scored)

    async def _resolve(
        self, query: RerankQuery, deadline: float, stored: StoredImages | None
    ) -> RequestContents:
        """Fetch stored images and those at URLs, and read the contents of queries and documents."""
        with stage("media"):
            fetched = await self._media.fetch(query.items(), deadline, stored)
            expect_known_images(query, fetched)
            contents = RequestContents(self._media, query, fetched)
            await contents.read(deadline)

        raise_first(query, contents.errors)
        return contents

    async def _look_up(
        self, keys: Collection[bytes], request: ResolvedRequest
    ) -> dict[bytes, Scored]:
        """The cached scores, by key; none where the query bypasses or refreshes the cache."""
        if request.query.cache != "use":
            return {}
        with stage("cache_get"):
            return await self._cache.get_many(keys)

    async def _score(
        self, groups: Sequence[QueryGroup], known: Mapping[bytes, Scored], request: ResolvedRequest
    ) -> FlightResult:
        """Score the documents that the cache has no score of, equal pairs of several requests
        once. All queries of the request share its decode budget."""
        budget = self._media.decode_budget(request.turns.scope)
        at_once = min(len(groups), QUERIES_AT_ONCE)

        async def score(group: QueryGroup) -> FlightResult:
            scoring = partial(
                self._scoring.score,
                group.context,
                deadline=request.deadline,
                turns=request.turns,
                budget=budget,
                at_once=at_once,
            )
            missing = group.missing(known)
            try:
                return await self._fly(missing, group.context.model, request, scoring)
            except BadRequest as error:
                if request.query.paired and is_of_query(error):
                    return FlightResult(fresh=dict.fromkeys(missing, error.with_traceback(None)))
                raise

        with stage("score"):
            return await score_groups(groups, score)

    async def _fly(
        self, missing: Documents, model: WorkerInfo, request: ResolvedRequest, score: Score
    ) -> FlightResult:
        """Score documents in single flight; a query that uses no cached scores uses none of another
        request either."""
        if request.query.cache != "use":
            digests, fresh = await score(missing)
            return FlightResult(digests, fresh)
        return await self._single_flight.score(
            missing,
            model.digest,
            request.deadline,
            score,
            background=request.turns.is_background,
        )

    async def _remember(self, fresh: Mapping[bytes, PairOutcome], request: ResolvedRequest) -> None:
        """Put new scores into the cache, unless the query bypasses it."""
        if request.query.cache == "bypass":
            return
        scores = {key: score for key, score in fresh.items() if isinstance(score, Scored)}
        if not scores:
            return
        with stage("cache_set"):
            await self._cache.set_many(scores)

    async def _groups(self, model: WorkerInfo, request: ResolvedRequest) -> list[QueryGroup]:
        """The documents of each distinct query, with their context and cache keys; equal documents
        of a query have equal keys."""

        def grouped() -> list[QueryGroup]:
            return [self._group(model, request, *group) for group in request.by_query()]

        if not request.query.paired:
            return grouped()
        # the keys of each of many queries have the instruction in them, which may be long
        return await anyio.to_thread.run_sync(grouped)

    def _group(
        self,
        model: WorkerInfo,
        request: ResolvedRequest,
        query: Content,
        documents: dict[int, Content],
    ) -> QueryGroup:
        instruction = request.query.instruction or model.default_instruction
        context = ScoringContext(
            model, instruction, query, request.query.truncate, request.cache_salt
        )
        keys = pair_keys(self._secret, context, documents.values())
        return QueryGroup(context, documents, dict(zip(documents, keys, strict=True)))

    def _cache_salt(self, scope: str) -> str:
        """A value that keeps the scores of a scope apart, here and in the caches of workers."""
        if not scope:
            return ""
        return hmac.digest(self._secret, b"scope" + scope.encode(), "sha256").hex()


class _ModelReplaced(Exception):
    """The workers have the model in another digest than some of the request's scores."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


def _served(model: WorkerInfo, digest: str, query: RerankQuery) -> WorkerInfo:
    """The model that gave all scores: the one that was asked for, or one of another digest, without
    the calibrations of the former.

    Raises `_ModelReplaced` where the query needs a calibration.
    """
    if digest == model.digest:
        return model
    if query.min_probability:
        raise _ModelReplaced(digest)
    return structs.replace(model, digest=digest, calibrations=())


def _single_digest(model: WorkerInfo, known: Mapping[bytes, Scored], scored: FlightResult) -> str:
    """The one digest that all scores of an attempt are of; raises `_ModelReplaced` where there are
    several."""
    newer = scored.digests - {model.digest}
    if not newer:
        return model.digest

    if known or scored.joined or len(scored.digests) > 1:
        raise _ModelReplaced(min(newer))
    return min(newer)
