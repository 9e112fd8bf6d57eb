"""The story of one request: resolve, look up, score what is missing, remember, order.

Knows the order of things; how each is done is its neighbours' business. Invariant: one answer never
mixes scores of two model digests, and every document of the request is either ranked or listed with
its error.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import replace

from msgspec import structs

from service.api import Item
from service.errors import BadRequest, Problem, RerankError, WorkerFailed
from service.gateway.cache.score_cache import ScoreCache, pair_keys
from service.gateway.domain import (
    PairOutcome,
    RerankQuery,
    RerankResult,
    ScoredDocument,
    ScoringContext,
)
from service.gateway.fleet.pool import WorkerPool
from service.gateway.media.content import Content
from service.gateway.media.reader import Media
from service.gateway.parsing.items import Reading
from service.gateway.scoring import UNBOUNDED, Scoring, Turns
from service.gateway.single_flight import FlightResult, SingleFlight
from service.observability.metrics import SCORE_METRICS
from service.observability.request_context import stage
from service.wire import Scored


class Reranker:
    """Answers requests with the help of a media reader, a cache, and workers."""

    def __init__(
        self, media: Media, cache: ScoreCache, workers: WorkerPool, *, secret: bytes
    ) -> None:
        self._media = media
        self._cache = cache
        self._workers = workers
        self._scoring = Scoring(media, workers)
        self._flights = SingleFlight()
        self._secret = secret

    async def rerank(
        self,
        ask: RerankQuery,
        until: float,
        digest: str | None = None,
        *,
        scope: str = "",
        turns: Turns = UNBOUNDED,
    ) -> RerankResult:
        """Score and order `ask`'s documents before `until` (event loop time); raises a
        `RerankError` where that fails.

        Scores are shared within a `scope`, and work waits for its `turns`. `digest` is what the
        model has been replaced by since a first attempt; there is no third.
        """
        model = self._workers.model(ask.model, digest)
        read = await self._resolve(ask, until)
        documents, errors = read.documents, read.errors
        question = ScoringContext(
            model,
            ask.instruction or model.default_instruction,
            read.query,
            ask.truncate,
            self._salt(scope),
        )
        keys = dict(
            zip(documents, pair_keys(self._secret, question, documents.values()), strict=True)
        )
        known = await self._look_up(ask, keys.values())
        missing = {key: documents[index] for index, key in keys.items() if key not in known}
        flown = await self._score(ask, question, missing, until, turns)
        newer = flown.digests - {model.digest}
        # the model was replaced meanwhile: ask once for all
        if newer and (known or flown.joined or len(flown.digests) > 1):
            if digest:
                raise WorkerFailed
            again = replace(ask, cache="refresh" if ask.cache == "use" else ask.cache)
            return await self.rerank(again, until, digest=min(newer), scope=scope, turns=turns)
        if flown.digests == {model.digest} and ask.cache != "bypass":
            await self._remember(flown.fresh)
        found = known | flown.joined | flown.fresh
        verdicts = {index: found[key] for index, key in keys.items()}
        ranked = [
            ScoredDocument(index, verdict, cached=keys[index] not in flown.fresh)
            for index, verdict in verdicts.items()
            if isinstance(verdict, Scored)
        ]
        served = structs.replace(model, digest=next(iter(flown.digests), model.digest))
        SCORE_METRICS.count(
            served.digest, verdicts.values(), cached=sum(each.cached for each in ranked)
        )
        errors |= {
            index: _said_of(index, verdict)
            for index, verdict in verdicts.items()
            if isinstance(verdict, RerankError)
        }
        _refuse(ask, errors)
        with stage("order"):
            ranked.sort(key=lambda each: (-each.score.logit, each.index))
        return RerankResult(served, ranked, sorted(errors.items()))

    def _salt(self, scope: str) -> str:
        """What keeps a scope's scores, here and in a worker's caches, from others."""
        return hmac.digest(self._secret, b"scope" + scope.encode(), "sha256").hex() if scope else ""

    async def _resolve(self, ask: RerankQuery, until: float) -> Reading:
        """The query's content, that of each document, and the errors of those that have none, by
        index."""
        readable = (document for document in ask.documents if isinstance(document, Item))
        with stage("media"):
            fetched = await self._media.fetch((ask.query, *readable), until)
            reading = Reading(self._media, ask.query, ask.documents, fetched)
            await reading.run(until)
        _refuse(ask, reading.errors)
        return reading

    async def _look_up(self, ask: RerankQuery, keys: Collection[bytes]) -> dict[bytes, Scored]:
        if ask.cache != "use":
            return {}
        with stage("cache_get"):
            return await self._cache.get_many(keys)

    async def _score(
        self,
        ask: RerankQuery,
        question: ScoringContext,
        missing: Mapping[bytes, Content],
        until: float,
        turns: Turns,
    ) -> FlightResult:
        decoding = self._media.decoding(turns.scope)

        def score(
            documents: Mapping[bytes, Content],
        ) -> Awaitable[tuple[set[str], dict[bytes, PairOutcome]]]:
            return self._scoring.score(question, documents, until, turns, decoding)

        with stage("score"):
            if ask.cache != "use":  # it wants its own
                return FlightResult(*await score(missing))
            return await self._flights.score(missing, question.model.digest, until, score)

    async def _remember(self, fresh: Mapping[bytes, PairOutcome]) -> None:
        with stage("cache_set"):
            await self._cache.set_many(
                {key: score for key, score in fresh.items() if isinstance(score, Scored)}
            )


def _said_of(index: int, error: RerankError) -> RerankError:
    """The error of one of several equal documents, said of another."""
    problems = [
        Problem(("documents", index, *problem.loc[2:]), problem.message)
        for problem in error.problems
    ]
    return type(error)(error.message, problems=problems, unlisted=error.unlisted)


def _refuse(ask: RerankQuery, errors: Mapping[int, RerankError]) -> None:
    """Fail the whole request for its first bad document, naming the others too, unless it asked to
    skip such."""
    if not errors or ask.skip_errors:
        return
    first = errors[min(errors)]
    if not isinstance(first, BadRequest):
        raise type(first)(first.message)

    problems: list[Problem] = []
    for index, error in sorted(errors.items()):
        problems += error.problems or [Problem(("documents", index), error.message)]
    unlisted = sum(error.unlisted for error in errors.values())
    raise type(first)(first.message, problems=problems, unlisted=unlisted)
