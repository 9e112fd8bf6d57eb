"""Scores and errors of a request's documents as its result: ordered, or raised.

Depends on outcomes by key, not on how they came about. Invariant: every document of a request is
either ranked or listed with its error, and an error names the place of its own document.
"""

from __future__ import annotations

from collections.abc import Mapping

from service.errors import BadRequest, Loc, Problem, RerankError
from service.gateway.domain import PairOutcome, RerankQuery, RerankResult, ScoredDocument
from service.gateway.resolved_request import ResolvedRequest
from service.gateway.single_flight import FlightResult
from service.observability.metrics import SCORE_METRICS
from service.observability.request_context import stage
from service.wire import Scored, WorkerInfo


def ordered(
    model: WorkerInfo,
    request: ResolvedRequest,
    keys: Mapping[int, bytes],
    known: Mapping[bytes, Scored],
    scored: FlightResult,
) -> RerankResult:
    """Order the scored documents, and list the errors of the others.

    `keys` are those of the readable documents, by index. Raises the first error where the query
    does not skip bad documents.
    """
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
    digest = request.scores_digest(model)
    SCORE_METRICS.count(digest, outcomes, cached=cached, probability=model.probability)
    raise_first(request.query, errors)

    with stage("order"):
        ranked.sort(key=lambda document: (-document.score.logit, document.index))
    return RerankResult(
        model,
        ranked,
        sorted(errors.items()),
        query=request.shared_query(),
        contents=request.documents,
    )


def raise_first(query: RerankQuery, errors: Mapping[int, RerankError]) -> None:
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


def _located(error: RerankError, index: int) -> RerankError:
    """A copy of an error that names the document at `index`, or the query of that document: equal
    pairs are scored once and share one error."""
    problems = [Problem(_loc_of(problem.loc, index), problem.message) for problem in error.problems]
    return type(error)(error.message, problems=problems, unlisted=error.unlisted)


def _loc_of(loc: Loc, index: int) -> Loc:
    """The location that stands for `loc` in the document at `index`, or in its query."""
    match loc:
        case ("query", *rest):
            return ("queries", index, *rest)
        case (side, _, *rest):
            return (side, index, *rest)
        case _:
            return ("documents", index)
