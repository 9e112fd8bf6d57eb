"""The service's own dialect: what an answer looks like."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from service.errors import InvalidImage, Problem
from service.gateway.dialects import native
from service.gateway.domain import RerankQuery, RerankResult, ScoredDocument
from service.limits import Limits
from service.wire import ImageRule, Scored, Transform, WorkerInfo
from tests.conftest import Rerank

MODEL = WorkerInfo(
    "gmr-tiny",
    "sha256:12",
    "gmr",
    "code",
    "find",
    3200,
    ImageRule(28, 12544, 50176),
    "torch",
    "float32",
    "cpu",
)


def asking(**fields: Any) -> RerankQuery:
    return native.read({"query": "q", "documents": ["d"], **fields}, Limits())


def answer(
    asked: RerankQuery, logits: list[float], model: WorkerInfo = MODEL, **more: Any
) -> dict[str, Any]:
    """What is sent for documents scored so, best first."""
    ranked = [
        ScoredDocument(place, Scored(logit, 100 + place, 64, place == 1), place == 0)
        for place, logit in enumerate(logits)
    ]
    return native.write(
        asked, RerankResult(model, ranked, **({"errors": []} | more)), "rr-1"
    ).model_dump(exclude_none=True)


def test_an_answer_has_every_field() -> None:
    asked = asking(documents=[{"text": "a", "id": "p7"}, "b", "c"])
    result = {"index": 0, "relevance_score": 0.5, "logit": 0.0, "id": "p7"}
    wrong = InvalidImage(problems=[Problem(("documents", 2), "Bad.")])

    assert answer(asked, [0.0, -800.0], errors=[(2, wrong)]) == {
        "id": "rr-1",
        "object": "rerank",
        "model": "gmr-tiny",
        "results": [
            result
            | {
                "meta": {
                    "prompt_tokens": 100,
                    "image_tokens": 64,
                    "truncated": False,
                    "cached": True,
                }
            },
            {
                "index": 1,
                "relevance_score": 0.0,
                "logit": -800.0,
                "meta": {
                    "prompt_tokens": 101,
                    "image_tokens": 64,
                    "truncated": True,
                    "cached": False,
                },
            },
        ],
        "errors": [{"index": 2, "code": "invalid_image", "message": "documents[2]: bad."}],
        "usage": {"prompt_tokens": 201, "total_tokens": 201},
        "meta": {
            "model_digest": "sha256:12",
            "cached_pairs": 1,
            "tokens": {"input_tokens": 201},
            "billed_units": {"search_units": 1},
        },
    }


def test_top_n_and_min_score_shorten_the_results_but_not_the_bill() -> None:
    documents = ["a", "b", "c", "d"]
    whole = answer(asking(documents=documents), [2.0, 1.0, 0.0, -1.0])
    for fields, kept in [
        ({"top_n": 2}, 2),
        ({"top_n": 9}, 4),
        ({"min_score": 0.5}, 3),
        ({"min_score": 1, "top_n": 2}, 0),
    ]:
        short = answer(asking(documents=documents, **fields), [2.0, 1.0, 0.0, -1.0])
        assert short["results"] == whole["results"][:kept]
        assert short["usage"] == whole["usage"]
        assert short["meta"] == whole["meta"]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("plain", "plain"),
        ({"image": "aaaa"}, ""),
        ({"text": "caption", "image": "aaaa"}, "caption"),
        (
            {
                "content": [
                    {"type": "text", "text": "one"},
                    {"type": "image_url", "image_url": {"url": "aaaa"}},
                ]
            },
            "one",
        ),
    ],
)
def test_returned_documents_are_their_text(document: object, text: str) -> None:
    (result,) = answer(asking(documents=document, return_documents=True), [1.0])["results"]
    assert result["document"] == {"text": text}


@pytest.mark.parametrize(("documents", "units"), [(1, 1), (100, 1), (101, 2), (1000, 10)])
def test_a_search_unit_is_a_hundred_documents(documents: int, units: int) -> None:
    assert answer(asking(documents=["d"] * documents), [0.0])["meta"]["billed_units"] == {
        "search_units": units
    }


@given(st.floats(-1e6, 1e6))
def test_the_relevance_score_is_the_logits_sigmoid(logit: float) -> None:
    (result,) = answer(asking(), [logit])["results"]
    assert 0 <= result["relevance_score"] <= 1
    assert result["relevance_score"] == pytest.approx(0.5 + math.tanh(logit / 2) / 2, abs=1e-15)


def test_another_transform_gives_other_relevance_scores_in_the_same_order() -> None:
    model = structs.replace(MODEL, probability=Transform(scale=5.0, shift=1.0))
    results = answer(asking(documents=["a", "b"], min_score=0.5), [6.0, 0.5], model)["results"]
    assert [each["relevance_score"] for each in results] == [pytest.approx(1 / (1 + math.exp(-1)))]
    assert [each["logit"] for each in results] == [6.0]


words = st.lists(st.sampled_from(["lists", "circles", "a red circle"]), min_size=1, max_size=8)


@settings(max_examples=5, deadline=None)
@given(documents=words)
def test_results_are_ordered_by_logit_and_equal_ones_by_index(
    rerank: Rerank, documents: list[str]
) -> None:
    results = rerank(query="a circle", documents=documents).json()["results"]
    assert results == sorted(results, key=lambda each: (-each["logit"], each["index"]))
    assert sorted(each["index"] for each in results) == list(range(len(documents)))
    assert len({each["logit"] for each in results}) <= len(set(documents))
