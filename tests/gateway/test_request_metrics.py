"""A request is counted by its size and its modality."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY

from service.errors import EmptyItem, RerankError, WorkerFailed
from service.gateway.domain import RerankQuery, RerankResult, ScoredDocument
from service.gateway.request_metrics import count_query, count_result
from service.items import Item
from service.observability.request_context import timed_request
from service.wire import Scored
from tests.gateway.stand_in import INFO

TEXT, IMAGE, BOTH = ({"text": "t"}, {"image": "i"}, {"text": "t", "image": "i"})
PARTS = {"content": [{"type": "image_url", "image_url": {"url": "i"}}] * 2}
CAPTIONED = {"content": [*PARTS["content"], {"type": "text", "text": "t"}]}


def ask(query: Any, *documents: Any) -> RerankQuery:
    read: list[Item | RerankError] = [
        each if isinstance(each, RerankError) else Item.validated(each) for each in documents
    ]
    return RerankQuery(Item.validated(query), read)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("asked", "modality", "images"),
    [
        (ask("q", TEXT, "t"), "text", 0),
        (ask("q", EmptyItem()), "text", 0),
        (ask("q", IMAGE, PARTS), "image", 3),
        (ask(IMAGE, IMAGE), "image", 2),
        (ask("q", IMAGE, {"text": "", "image": "i"}), "image", 2),
        (ask(IMAGE, TEXT), "mixed", 1),
        (ask("q", IMAGE, TEXT), "mixed", 1),
        (ask("q", BOTH), "mixed", 1),
        (ask("q", CAPTIONED), "mixed", 2),
    ],
)
def test_what_is_compared(asked: RerankQuery, modality: str, images: int) -> None:
    documents = "1" if len(asked.documents) == 1 else "2-10"
    name = "rerank_scoring_duration_seconds_sum"
    before = (
        sample(name, documents=documents, modality=modality),
        sample("rerank_request_images_sum"),
    )
    count_query(asked)
    count_result(asked, RerankResult(INFO, [], []), 0.25)
    after = (
        sample(name, documents=documents, modality=modality),
        sample("rerank_request_images_sum"),
    )

    assert (after[0] - before[0], after[1] - before[1]) == (pytest.approx(0.25), images)


@pytest.mark.parametrize(
    ("count", "label"),
    [
        (1, "1"),
        (2, "2-10"),
        (10, "2-10"),
        (11, "11-100"),
        (100, "11-100"),
        (101, "101-1000"),
        (1000, "101-1000"),
        (1001, "1001+"),
    ],
)
def test_how_much_is_compared(count: int, label: str) -> None:
    name = "rerank_scoring_duration_seconds_count"
    before = sample(name, documents=label, modality="text")
    count_result(ask("q", *["t"] * count), RerankResult(INFO, [], []), 0.0)
    assert sample(name, documents=label, modality="text") - before == 1


def test_tokens_and_errors_are_counted_and_the_line_says_so() -> None:
    scores = [Scored(1.0, 10, 0, False, 4), Scored(0.0, 7, 0, False)]
    ranked = [ScoredDocument(0, scores[0], cached=False), ScoredDocument(1, scores[1], cached=True)]
    counted = {
        ("rerank_prompt_tokens_total", "source", "computed"): 6,
        ("rerank_prompt_tokens_total", "source", "prefix"): 4,
        ("rerank_prompt_tokens_total", "source", "cached"): 7,
        ("rerank_errors_total", "code", "worker_failed"): 1,
    }
    before = {each: sample(each[0], **{each[1]: each[2]}) for each in counted}

    with timed_request("r") as record:
        asked = ask("q", "a", "b", "c")
        count_query(asked)
        count_result(asked, RerankResult(INFO, ranked, [(2, WorkerFailed())]), 0.0)

    assert {
        each: sample(each[0], **{each[1]: each[2]}) - before[each] for each in counted
    } == counted
    assert record.log_fields == {
        "documents": 3,
        "images": 0,
        "top_n": None,
        "cached": 1,
        "errors": 1,
        "digest": "other",
    }
