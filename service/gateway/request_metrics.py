"""The metrics and log fields of a rerank request: its size, and its result.

Depends on the shape of queries and results, not on the meaning of scores. Invariant: of a request's
content only counts are recorded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import chain
from typing import Literal

from service.gateway.domain import RerankQuery, RerankResult
from service.items import Item
from service.observability.metrics import (
    COMPLETION_TOKENS,
    DOCUMENTS,
    ERRORS,
    REQUEST_IMAGES,
    SCORING_SECONDS,
    TOKENS,
)
from service.observability.request_context import add_log_fields, exemplar
from service.observability.score_metrics import short_digest

_SIZES = ("1", "2-10", "11-100", "101-1000", "1001+")
_SIZE_LIMITS = (1, 10, 100, 1_000)

Modality = Literal["text", "image", "mixed"]


def count_query(query: RerankQuery) -> None:
    """Record the size of a request that could be read."""
    images = _count_images(query.items())
    DOCUMENTS.observe(len(query.documents))
    REQUEST_IMAGES.observe(images)
    add_log_fields(documents=len(query.documents), images=images, top_n=query.top_n)


def count_result(query: RerankQuery, result: RerankResult, seconds: float) -> None:
    """Record a result that was ready `seconds` after its request arrived."""
    size = _SIZES[bisect_left(_SIZE_LIMITS, len(query.documents))]
    SCORING_SECONDS.labels(size, _modality(query)).observe(seconds, exemplar())
    count_scored(result)


def count_scored(result: RerankResult) -> None:
    """Record the tokens and errors of a result, whenever it was ready."""
    computed = reused = cached = written = 0
    cached_documents = 0
    scored = list(chain.from_iterable(each.ranked for each in result.passes()))
    for document in scored:
        if document.cached:
            cached += document.score.prompt_tokens
            cached_documents += 1
        else:
            reused += document.score.reused_tokens
            computed += document.score.prompt_tokens - document.score.reused_tokens
            written += document.score.completion_tokens
    TOKENS.labels("cached").inc(cached)
    TOKENS.labels("prefix").inc(reused)
    TOKENS.labels("computed").inc(computed)
    COMPLETION_TOKENS.inc(written)

    for _, error in result.errors:
        ERRORS.labels(error.code).inc()
    add_log_fields(
        cached=cached_documents,
        errors=len(result.errors) or None,
        digest=short_digest(result.model.digest),
    )


def _count_images(items: Iterable[Item]) -> int:
    count = 0
    for item in items:
        if item.image is not None or item.content is not None:
            count += len(item.images())
    return count


def _modality(query: RerankQuery) -> Modality:
    """`text` for a request without images, `image` where every document is images alone, else
    `mixed`."""
    if not _count_images(query.items()):
        return "text"

    documents = [document for document in query.documents if isinstance(document, Item)]
    return "mixed" if any(document.texts() for document in documents) else "image"
