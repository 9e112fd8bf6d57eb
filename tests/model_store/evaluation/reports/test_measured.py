"""Values of queries: the model's, the first stage's and a perfect reranker's, of the same lists."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.evaluation.metrics import Metric, parse_metric
from model_store.evaluation.reports.measured import Measured, measure
from model_store.evaluation.results import ResultsUnusable
from model_store.evaluation.runs.query_result import QueryResult
from tests.model_store.evaluation.reports.runs import query_result

NDCG = Metric("ndcg", 10)
metrics = st.sampled_from(["ndcg@3", "ndcg@10", "mrr", "map", "hit@1", "recall@5"])


@st.composite
def results(draw: st.DrawFn) -> QueryResult:
    grades = draw(st.lists(st.integers(0, 3), max_size=12))
    scores = [draw(st.one_of(st.none(), st.floats(-9, 9, width=16))) for _ in grades]
    judged = [*grades, *draw(st.lists(st.integers(1, 3), max_size=3))]
    return QueryResult(
        "data",
        draw(st.text(min_size=1, max_size=4)),
        [f"d{place}" for place in range(len(grades))],
        scores,
        grades,
        sorted((grade for grade in judged if grade), reverse=True),
    )


def measured(results: list[QueryResult], metric: Metric = NDCG) -> Measured:
    found = measure(results, metric)
    assert found is not None
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(results(), min_size=1, max_size=6), metrics)
def test_no_order_is_better_than_the_perfect_one(given: list[QueryResult], name: str) -> None:
    found = measured(given, parse_metric(name))
    for values in (found.score, found.first_stage):
        assert np.all(values <= found.perfect + 1e-12)
        assert np.all(values >= 0)
    assert found.queries == [result.query for result in given]


@settings(max_examples=50, deadline=None)
@given(results(), metrics)
def test_a_query_without_scores_has_the_first_stages_value(given: QueryResult, name: str) -> None:
    failed = msgspec.structs.replace(
        given, scores=[None] * len(given.scores), error="The service timed out."
    )
    found = measured([failed], parse_metric(name))
    assert found.score == found.first_stage
    assert (found.counts.failed, found.counts.refused) == (1, 0)


def test_what_the_first_stage_missed_bounds_every_reranker() -> None:
    """One of two relevant documents is a candidate, the third of four, and is ranked second."""
    result = QueryResult("data", "q", list("abcd"), [3.0, 0.5, 2.0, 1.0], [0, 0, 1, 0], [1, 1])
    found, ideal = measured([result]), 1 + 1 / math.log2(3)

    assert found.recall.tolist() == [0.5]
    assert found.perfect == pytest.approx([1 / ideal])
    assert found.score == pytest.approx([1 / math.log2(3) / ideal])
    assert found.first_stage == pytest.approx([1 / 2 / ideal])


def test_refused_documents_rank_last_and_equal_scores_keep_the_first_stages_order() -> None:
    result = QueryResult("data", "q", list("abcd"), [None, 1.0, 1.0, 0.0], [0, 0, 1, 0], [1])
    found = measured([result], Metric("mrr"))

    assert found.score.tolist() == [1 / 2]
    assert (found.counts.refused, found.counts.with_refused) == (1, 1)


def test_counts_are_sums() -> None:
    found = measured([query_result("facts", number) for number in range(6)])
    counts = found.counts
    assert (counts.queries, counts.pairs, counts.prompt_tokens) == (6, 120, 6_000)
    assert counts.cached_pairs == sum(number % 3 for number in range(6))


def test_queries_in_several_blocks_are_measured_as_alone() -> None:
    many = [query_result("facts", number, candidates=1 + number % 20) for number in range(1_100)]
    together = measured(many)
    assert together.score.tolist() == [float(measured([each]).score[0]) for each in many]


def test_the_digest_is_of_queries_candidates_and_judgements_alone() -> None:
    given = [query_result("facts", number) for number in range(3)]
    others = [query_result("facts", number, seed=7) for number in range(3)]
    assert measured(given).digest == measured(others[::-1]).digest

    for change in ({"candidates": list("x" * 20)}, {"grades": [0] * 20}, {"ideal": [3]}):
        changed = msgspec.structs.replace(given[0], **change)
        assert measured([changed, *given[1:]]).digest != measured(given).digest
    assert measured(given[:2]).digest != measured(given).digest


def test_lists_of_unequal_length_are_refused() -> None:
    result = QueryResult("data", "q", ["a"], [1.0, 2.0], [0], [1])
    with pytest.raises(ResultsUnusable, match="'q' of 'data' has 1 candidates, 2 scores"):
        measure([result], NDCG)


def test_no_queries_are_no_values() -> None:
    assert measure([], NDCG) is None
