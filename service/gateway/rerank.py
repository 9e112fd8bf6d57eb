"""One rerank request: resolve its contents, look up known scores, score the misses, remember them,
order.

Holds the order of these steps alone: media, cache, scoring and single flight do the work.
Invariant: one answer never mixes scores of two model digests, and every document of a request is
either ranked or listed with its error.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass, replace

from msgspec import structs

from service.api import Item
from service.errors import BadRequest, Problem, RerankError, WorkerFailed
from service.gateway.cache.keys import pair_keys
from service.gateway.cache.score_cache import ScoreCache
from service.gateway.domain import (
    Documents,
    PairOutcome,
    RerankQuery,
    RerankResult,
    ScoredDocument,
    ScoringContext,
)
from service.gateway.fleet.pool import WorkerPool
from service.gateway.media.content import Content
from service.gateway.media.reader import Media
from service.gateway.modalities import expect_readable
from service.gateway.parsing.items import RequestContents
from service.gateway.scoring import UNBOUNDED, Scoring, Turns
from service.gateway.single_flight import FlightResult, SingleFlight
from service.observability.metrics import SCORE_METRICS
from service.observability.request_context import stage
from service.wire import Scored, WorkerInfo


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
        # while the request waited, the model may have been replaced by one that reads text only
        query = expect_readable(query, model)
        contents = await self._resolve(query, deadline)
        request = _Request(
            query,
            contents.query,
            contents.documents,
            contents.errors,
            deadline,
            self._cache_salt(scope),
            turns,
        )

        try:
            return await self._attempt(model, request)
        except _ModelReplaced as replaced:
            model = self._pool.model(query.model, replaced.digest)

        try:
            return await self._attempt(model, request.for_new_model(model))
        except _ModelReplaced:
            raise WorkerFailed from None

    async def _attempt(self, model: WorkerInfo, request: _Request) -> RerankResult:
        """Score and order with one digest of the model; raises `_ModelReplaced` where the workers
        have another one by now."""
        context = self._context(model, request)
        keys = self._keys(context, request)

        known = await self._look_up(keys.values(), request)
        missing = {key: request.documents[index] for index, key in keys.items() if key not in known}
        scored = await self._score(context, missing, request)
        digest = _single_digest(model, known, scored)
        if digest == model.digest:
            await self._remember(scored.fresh, request)

        served = structs.replace(model, digest=digest)
        return _order(served, request, keys, known, scored)

    async def _resolve(self, query: RerankQuery, deadline: float) -> RequestContents:
        """Fetch the images at URLs, and read the contents of the query and of each document."""
        items = [document for document in query.documents if isinstance(document, Item)]

        with stage("media"):
            fetched = await self._media.fetch((query.query, *items), deadline)
            contents = RequestContents(self._media, query.query, query.documents, fetched)
            await contents.read(deadline)

        _raise_first(query, contents.errors)
        return contents

    async def _look_up(self, keys: Collection[bytes], request: _Request) -> dict[bytes, Scored]:
        """The cached scores, by key; none where the query bypasses or refreshes the cache."""
        if request.query.cache != "use":
            return {}
        with stage("cache_get"):
            return await self._cache.get_many(keys)

    async def _score(
        self, context: ScoringContext, missing: Documents, request: _Request
    ) -> FlightResult:
        """Score the documents that the cache has no score of, equal pairs of several requests
        once."""
        budget = self._media.decode_budget(request.turns.scope)

        def score(documents: Documents) -> Awaitable[tuple[set[str], dict[bytes, PairOutcome]]]:
            return self._scoring.score(context, documents, request.deadline, request.turns, budget)

        with stage("score"):
            # a query that uses no cached scores uses none of another request either
            if request.query.cache != "use":
                digests, fresh = await score(missing)
                return FlightResult(digests, fresh)
            return await self._single_flight.score(
                missing, context.model.digest, request.deadline, score
            )

    async def _remember(self, fresh: Mapping[bytes, PairOutcome], request: _Request) -> None:
        """Put new scores into the cache, unless the query bypasses it."""
        if request.query.cache == "bypass":
            return
        scores = {key: score for key, score in fresh.items() if isinstance(score, Scored)}
        if not scores:
            return
        with stage("cache_set"):
            await self._cache.set_many(scores)

    def _context(self, model: WorkerInfo, request: _Request) -> ScoringContext:
        query = request.query
        return ScoringContext(
            model,
            query.instruction or model.default_instruction,
            request.query_content,
            query.truncate,
            request.cache_salt,
        )

    def _keys(self, context: ScoringContext, request: _Request) -> dict[int, bytes]:
        """The cache key of each document, by index; equal documents have equal keys."""
        keys = pair_keys(self._secret, context, request.documents.values())
        return dict(zip(request.documents, keys, strict=True))

    def _cache_salt(self, scope: str) -> str:
        """A value that keeps the scores of a scope apart, here and in the caches of workers."""
        if not scope:
            return ""
        return hmac.digest(self._secret, b"scope" + scope.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class _Request:
    """A query, the contents of its items, and the bounds that every attempt to answer it has.

    `documents` are the readable ones, by index; `errors` those of the others.
    """

    query: RerankQuery
    query_content: Content
    documents: Mapping[int, Content]
    errors: Mapping[int, RerankError]
    deadline: float
    cache_salt: str
    turns: Turns

    def for_new_model(self, model: WorkerInfo) -> _Request:
        """The same request without cached scores, and without what another model cannot read."""
        query = expect_readable(self.query, model)
        if query.cache == "use":
            query = replace(query, cache="refresh")

        documents: dict[int, Content] = {}
        errors = dict(self.errors)
        for index, content in self.documents.items():
            document = query.documents[index]
            if isinstance(document, RerankError):
                errors[index] = document
            else:
                documents[index] = content
        return replace(self, query=query, documents=documents, errors=errors)


class _ModelReplaced(Exception):
    """The workers have the model in another digest than some of the request's scores."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


def _single_digest(model: WorkerInfo, known: Mapping[bytes, Scored], scored: FlightResult) -> str:
    """The one digest that all scores of an attempt are of; raises `_ModelReplaced` where there are
    several."""
    newer = scored.digests - {model.digest}
    if not newer:
        return model.digest

    if known or scored.joined or len(scored.digests) > 1:
        raise _ModelReplaced(min(newer))
    return min(newer)


def _order(
    model: WorkerInfo,
    request: _Request,
    keys: Mapping[int, bytes],
    known: Mapping[bytes, Scored],
    scored: FlightResult,
) -> RerankResult:
    """Order the scored documents, and list the errors of the others; raises the first error where
    the query does not skip bad documents."""
    found: dict[bytes, PairOutcome] = {**known, **scored.joined, **scored.fresh}
    outcomes = [found[key] for key in keys.values()]

    ranked: list[ScoredDocument] = []
    errors = dict(request.errors)
    for (index, key), outcome in zip(keys.items(), outcomes, strict=True):
        if isinstance(outcome, Scored):
            ranked.append(ScoredDocument(index, outcome, cached=key not in scored.fresh))
        else:
            errors[index] = _located(outcome, index)

    cached = sum(document.cached for document in ranked)
    SCORE_METRICS.count(model.digest, outcomes, cached=cached, probability=model.probability)
    _raise_first(request.query, errors)

    with stage("order"):
        ranked.sort(key=lambda document: (-document.score.logit, document.index))
    return RerankResult(model, ranked, sorted(errors.items()))


def _located(error: RerankError, index: int) -> RerankError:
    """A copy of an error that names the document at `index`: equal documents are scored once and
    share one error."""
    problems = [
        Problem(("documents", index, *problem.loc[2:]), problem.message)
        for problem in error.problems
    ]
    return type(error)(error.message, problems=problems, unlisted=error.unlisted)


def _raise_first(query: RerankQuery, errors: Mapping[int, RerankError]) -> None:
    """Raise the error of the first bad document, with the problems of all of them, unless the
    query skips bad documents."""
    if not errors or query.skip_errors:
        return

    first = errors[min(errors)]
    if not isinstance(first, BadRequest):
        raise type(first)(first.message)

    problems: list[Problem] = []
    for index, error in sorted(errors.items()):
        problems += error.problems or [Problem(("documents", index), error.message)]
    unlisted = sum(error.unlisted for error in errors.values())
    raise type(first)(first.message, problems=problems, unlisted=unlisted)
