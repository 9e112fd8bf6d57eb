"""Requests for cascades: each stage scores the documents that the one before it kept, and the
stages' scores become one order.

Depends on the steps of a request, which `Reranker` has, and on the rules that a cascade was
published with; cache, single flight, admission and workers are those of any request. Invariant:
every document is ranked by one stage or listed with its error, and the last stage's scores stay as
they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from msgspec import structs

from model_store.cascades.keep_rule import kept, next_stage
from model_store.cascades.total_order import total_order
from service.errors import DeadlineExceeded, RerankError
from service.gateway.cascades.catalogue import Cascades
from service.gateway.cascades.plan import Plan, stage_model, variant_of
from service.gateway.costs import request_cost
from service.gateway.domain import RerankQuery, RerankResult, ScoredDocument
from service.gateway.fleet.pool import WorkerPool
from service.gateway.media.content import Content, Picture
from service.gateway.rerank import Reranker
from service.gateway.resolved_request import ResolvedRequest
from service.gateway.turns import UNBOUNDED, Turns
from service.observability.cascade_metrics import CASCADE_DOCUMENTS, CASCADE_TOKENS
from service.wire import Transform, WorkerInfo

Answered = Callable[[Plan, ResolvedRequest, RerankResult], None]
"""Called with each request for a cascade that more than its last stage scored."""


@dataclass(slots=True)
class _Run:
    """The stages that scored a request so far: their results by number, and errors by index."""

    results: dict[int, RerankResult] = field(default_factory=dict)
    errors: dict[int, RerankError] = field(default_factory=dict)
    cut_short: int = 0
    """Kept documents that a stage did not score before the deadline."""


class CascadeReranker:
    """Answers queries for cascades, and hands those for models to `reranker`; `answered` is called
    with what may be compared."""

    def __init__(
        self, reranker: Reranker, pool: WorkerPool, cascades: Cascades, answered: Answered
    ) -> None:
        self._reranker = reranker
        self._pool = pool
        self._cascades = cascades
        self._answered = answered

    def cost(self, query: RerankQuery, model: WorkerInfo) -> int:
        """The estimated cost of a request: of a cascade, the first stage in full and the share of
        the later ones that they are expected to score."""
        if query.model is None or not self._cascades.has(query.model):
            return request_cost(query, model)

        plan = self._cascades.plan(query.model)
        documents = max(1, len(query.documents))
        cost = 0
        for number, expected in _runs(plan, query):
            full = request_cost(query, plan.models[number])
            cost += full * expected // documents
        return max(1, cost)

    def expected_part(self, model: WorkerInfo, scope: str) -> float:
        """As `Reranker.expected_part`; of a cascade, that of its first stage, which has most of the
        work."""
        if self._cascades.has(model.model):
            model = self._cascades.plan(model.model).models[0]
        return self._reranker.expected_part(model, scope)

    async def rerank(
        self,
        query: RerankQuery,
        deadline: float,
        *,
        scope: str = "",
        turns: Turns = UNBOUNDED,
    ) -> RerankResult:
        """As `Reranker.rerank`, also for a query whose model is a cascade.

        Raises `NoWorker` where the cascade is not served. Where the deadline ends a later stage of
        a query that skips errors, its documents keep the score of the stage before.
        """
        if query.model is None or not self._cascades.has(query.model):
            return await self._reranker.rerank(query, deadline, scope=scope, turns=turns)

        plan = self._cascades.plan(query.model)
        request = await self._reranker.read(query, plan.model, deadline, scope=scope, turns=turns)
        run = await self._run(plan, request)
        result = _merged(plan, run, request)
        _count(plan, result)
        if len(run.results) > 1 and not run.cut_short:
            self._answered(plan, request, result)
        return result

    async def score_by_last(self, plan: Plan, request: ResolvedRequest) -> RerankResult:
        """Score and order the documents of a request by the last stage of a cascade alone."""
        return await self._score(plan, len(plan.stages) - 1, request)

    async def _run(self, plan: Plan, request: ResolvedRequest) -> _Run:
        """Score by one stage after the other, until the last one or the deadline."""
        run = _Run(errors=dict(request.errors))
        pictures = _has_pictures(request)
        number = _first(plan, request, pictures)
        while request.documents:
            result = await self._stage(plan, number, request, run)
            if result is None:
                break
            run.results[number] = result
            rule = plan.stages[number].keep
            if rule is None or not result.ranked:
                break

            model = plan.models[number]
            chosen = kept(_log_odds(result, model.probability), rule)
            request = _narrowed(request, chosen)
            number = next_stage(plan.stages, number + 1, len(chosen), pictures=pictures)
        return run

    async def _stage(
        self, plan: Plan, number: int, request: ResolvedRequest, run: _Run
    ) -> RerankResult | None:
        """The result of one stage; None where the deadline ended a later stage of a query that
        skips errors."""
        try:
            result = await self._score(plan, number, request)
        except DeadlineExceeded:
            if not run.results or not request.query.skip_errors:
                raise
            run.cut_short += len(request.documents)
            return None

        for index, error in result.errors:
            if run.results and isinstance(error, DeadlineExceeded):
                run.cut_short += 1
            else:
                run.errors[index] = error
        return result

    async def _score(self, plan: Plan, number: int, request: ResolvedRequest) -> RerankResult:
        find = partial(stage_model, plan.published, number, self._pool)
        of_stage = replace(request, variant=variant_of(plan.stages[number]))
        return await self._reranker.score(of_stage, find)


def _runs(plan: Plan, query: RerankQuery) -> list[tuple[int, int]]:
    """The stages that a query is expected to need, and the number of documents of each."""
    documents = len(query.documents)
    if query.paired:
        return [(len(plan.stages) - 1, documents)]
    pictures = any(item.images() for item in query.items())
    return plan.runs(documents, pictures=pictures)


def _first(plan: Plan, request: ResolvedRequest, pictures: bool) -> int:
    """The first stage of a request, from 0; documents with queries of their own are no ranking, and
    are scored by the last stage alone."""
    if request.query.paired:
        return len(plan.stages) - 1
    return next_stage(plan.stages, 0, len(request.documents), pictures=pictures)


def _narrowed(request: ResolvedRequest, chosen: list[int]) -> ResolvedRequest:
    """The request with some of its documents; errors of the others are known already."""
    return replace(
        request,
        queries={index: request.queries[index] for index in chosen},
        documents={index: request.documents[index] for index in chosen},
        errors={},
    )


def _merged(plan: Plan, run: _Run, request: ResolvedRequest) -> RerankResult:
    """The results of all stages as one, with scores on the scale of the last stage."""
    last = plan.models[-1].probability
    scored: list[Mapping[int, float]] = [{} for _ in plan.stages]
    documents: list[dict[int, ScoredDocument]] = [{} for _ in plan.stages]
    for number, result in run.results.items():
        own = plan.models[number].probability
        documents[number] = {
            each.index: each for each in result.ranked if each.index not in run.errors
        }
        scored[number] = {
            index: _rescaled(each.score.logit, own, last)
            for index, each in documents[number].items()
        }

    ranked: list[ScoredDocument] = []
    for placed in total_order(scored):
        document = documents[placed.stage][placed.index]
        score = structs.replace(document.score, logit=placed.score)
        ranked.append(structs.replace(document, score=score, stage=placed.stage + 1))
    return RerankResult(
        plan.model,
        ranked,
        sorted(run.errors.items()),
        stages=run.results,
        warnings=_warnings(run),
        query=request.shared_query(),
        contents=request.documents,
    )


def _warnings(run: _Run) -> list[str]:
    if not run.cut_short:
        return []
    return [
        f"The deadline ended before a later stage had scored {run.cut_short} documents: they are"
        " ranked by the score of the stage before."
    ]


def _rescaled(raw: float, own: Transform, last: Transform) -> float:
    """A raw score on the scale of another model, at equal log-odds."""
    if own == last:
        return raw
    return own.log_odds(raw) * last.scale + last.shift


def _log_odds(result: RerankResult, transform: Transform) -> dict[int, float]:
    return {each.index: transform.log_odds(each.score.logit) for each in result.ranked}


def _count(plan: Plan, result: RerankResult) -> None:
    """Record the documents and tokens of each stage."""
    for document in result.ranked:
        CASCADE_DOCUMENTS.labels(plan.name, str(document.stage)).inc()
    for number, scored in result.stages.items():
        tokens = sum(each.score.prompt_tokens for each in scored.ranked)
        CASCADE_TOKENS.labels(plan.name, str(number + 1)).inc(tokens)


def _has_pictures(request: ResolvedRequest) -> bool:
    contents: list[Content] = [*request.queries.values(), *request.documents.values()]
    return any(isinstance(part, Picture) for content in contents for part in content)
