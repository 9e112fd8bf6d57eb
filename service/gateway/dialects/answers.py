"""Parts of an answer that dialects share: results, errors of documents, usage, the service's meta.

The module depends on the public types, on no dialect. Invariant: results are in the order of
`RerankResult.ranked`, and of a request, only ids, metadata and, where it asks for them, texts are
repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

from service.api import AnswerMeta, DocumentError, Result, ResultMeta, ReturnedDocument, Usage
from service.gateway.domain import RerankQuery, RerankResult, ScoredDocument
from service.items import Item
from service.wire import WorkerInfo

_DOCUMENTS_PER_SEARCH_UNIT = 100


@dataclass(slots=True, kw_only=True)
class TextResult:
    """One ranked document, whose `document` is its text."""

    index: int
    relevance_score: float
    document: str | None = None
    logit: float
    probability: float | None = None
    id: str | int | None = None
    metadata: dict[str, Any] | None = None
    meta: ResultMeta


def returned(query: RerankQuery, result: RerankResult) -> list[ScoredDocument]:
    """The ranked documents that an answer has: the best `top_n` with a relevance score, or a
    probability, of at least `min_score`."""
    best = result.ranked[: query.top_n]
    least = query.min_score
    if least is None:
        return best

    calibration = result.model.calibration(query.instruction)
    found: list[ScoredDocument] = []
    for document in best:
        logit = document.score.logit
        compared: float | None = result.model.probability(logit)
        if query.min_probability:
            compared = None if calibration is None else calibration.map(logit)
        if compared is not None and compared >= least:
            found.append(document)
    return found


def results(query: RerankQuery, result: RerankResult) -> list[Result]:
    """The results of an answer. They have a probability where the model is calibrated for the
    query's instruction."""
    calibration = result.model.calibration(query.instruction)
    found: list[Result] = []
    for document in returned(query, result):
        logit = document.score.logit
        relevance = result.model.probability(logit)
        probability = None if calibration is None else calibration.map(logit)
        found.append(_result(query, result.model, document, relevance, probability))
    return found


def text_results(query: RerankQuery, result: RerankResult) -> list[TextResult]:
    """The same results with their documents' texts; with `raw_scores`, the scores are logits."""
    found: list[TextResult] = []
    for each in results(query, result):
        found.append(
            TextResult(
                index=each.index,
                relevance_score=each.logit if query.raw_scores else each.relevance_score,
                document=each.document.text if each.document else None,
                logit=each.logit,
                probability=each.probability,
                id=each.id,
                metadata=each.metadata,
                meta=each.meta,
            )
        )
    return found


def document_errors(result: RerankResult) -> list[DocumentError]:
    """The documents without a score, and the error of each."""
    return [
        DocumentError(index=index, code=error.code, message=error.sentence())
        for index, error in result.errors
    ]


def usage(result: RerankResult) -> Usage:
    """The tokens of every scored pair, of all stages, whether its result is returned or not.

    A cached score has its prompt's tokens, and none that were written for it.
    """
    scored = list(chain.from_iterable(each.ranked for each in result.passes()))
    tokens = sum(document.score.prompt_tokens for document in scored)
    if not result.model.max_completion_tokens:
        return Usage(prompt_tokens=tokens, total_tokens=tokens)

    written = sum(map(completion_tokens, scored))
    return Usage(prompt_tokens=tokens, total_tokens=tokens + written, completion_tokens=written)


def completion_tokens(document: ScoredDocument) -> int:
    """The tokens that were written for a score; none for a cached one."""
    return 0 if document.cached else document.score.completion_tokens


def search_units(query: RerankQuery) -> int:
    """Cohere's unit of billing: up to 100 documents of one query."""
    return math.ceil(len(query.documents) / _DOCUMENTS_PER_SEARCH_UNIT)


def answer_meta(query: RerankQuery, result: RerankResult) -> AnswerMeta:
    """The model's digest, cached pairs, and warnings."""
    used = usage(result)
    tokens = {"input_tokens": used.prompt_tokens}
    if used.completion_tokens is not None:
        tokens["output_tokens"] = used.completion_tokens
    return AnswerMeta(
        model_digest=result.model.digest,
        cached_pairs=sum(document.cached for document in result.ranked),
        tokens=tokens,
        billed_units={"search_units": search_units(query)},
        warnings=[*query.warnings, *result.warnings] or None,
    )


def returned_text(query: RerankQuery, index: int) -> str:
    """The text of a document; "" where it has none."""
    document = query.documents[index]
    return "".join(document.texts()) if isinstance(document, Item) else ""


def _result(
    query: RerankQuery,
    model: WorkerInfo,
    ranked: ScoredDocument,
    relevance: float,
    probability: float | None,
) -> Result:
    document, score = query.documents[ranked.index], ranked.score
    result = Result(
        index=ranked.index,
        relevance_score=relevance,
        logit=score.logit,
        probability=probability,
        meta=ResultMeta(
            prompt_tokens=score.prompt_tokens,
            image_tokens=score.image_tokens,
            truncated=score.truncated,
            cached=ranked.cached,
            completion_tokens=completion_tokens(ranked) if model.max_completion_tokens else None,
            stage=ranked.stage or None,
        ),
    )

    if isinstance(document, Item):
        result.id = document.id
        result.metadata = document.metadata
        if query.return_documents:
            result.document = ReturnedDocument(text=returned_text(query, ranked.index))
    return result
