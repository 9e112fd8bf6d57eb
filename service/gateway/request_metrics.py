"""What a rerank request adds to the metrics, and to its line in the log: how much was asked, and
what became of it.

Knows asks and outcomes, no scores' meaning. Invariant: nothing of what was asked but counts, and
the names of model and tenant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal

from service.api import Item
from service.gateway.domain import RerankQuery, RerankResult
from service.observability.metrics import DOCUMENTS, ERRORS, REQUEST_IMAGES, SCORING_SECONDS, TOKENS
from service.observability.request_context import add_log_fields, exemplar
from service.observability.score_metrics import short_digest

_CLASSES = ("1", "2-10", "11-100", "101-1000", "1001+")
_CLASS_ENDS = (1, 10, 100, 1_000)

Modality = Literal["text", "image", "mixed"]


def count_query(ask: RerankQuery) -> None:
    """Count a request that could be read."""
    images = _images([ask.query, *_items(ask)])
    DOCUMENTS.observe(len(ask.documents))
    REQUEST_IMAGES.observe(images)
    add_log_fields(documents=len(ask.documents), images=images, top_n=ask.top_n)


def count_result(ask: RerankQuery, outcome: RerankResult, seconds: float) -> None:
    """Count a request whose documents are ranked, `seconds` after it arrived."""
    SCORING_SECONDS.labels(
        _CLASSES[bisect_left(_CLASS_ENDS, len(ask.documents))], _modality(ask)
    ).observe(seconds, exemplar())
    scored = [ranked.score for ranked in outcome.ranked if not ranked.cached]
    reused = sum(score.reused_tokens for score in scored)
    TOKENS.labels("cached").inc(
        sum(ranked.score.prompt_tokens for ranked in outcome.ranked if ranked.cached)
    )
    TOKENS.labels("prefix").inc(reused)
    TOKENS.labels("computed").inc(sum(score.prompt_tokens for score in scored) - reused)
    for _, error in outcome.errors:
        ERRORS.labels(error.code).inc()
    add_log_fields(
        cached=len(outcome.ranked) - len(scored),
        errors=len(outcome.errors) or None,
        digest=short_digest(outcome.model.digest),
    )


def _items(ask: RerankQuery) -> list[Item]:
    return [document for document in ask.documents if isinstance(document, Item)]


def _images(items: Iterable[Item]) -> int:
    return sum(
        item.image is not None
        if item.content is None
        else sum(part.image_url is not None for part in item.content)
        for item in items
    )


def _modality(ask: RerankQuery) -> Modality:
    """What a request compares: texts; documents that are images alone; anything else."""
    documents = _items(ask)
    if not _images([ask.query, *documents]):
        return "text"
    return "image" if all(not _has_text(document) for document in documents) else "mixed"


def _has_text(item: Item) -> bool:
    return bool(item.text) if item.content is None else any(part.text for part in item.content)
