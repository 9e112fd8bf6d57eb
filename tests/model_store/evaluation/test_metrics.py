"""Ranking metrics equal what a hand computes, and behave as rankings do."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.evaluation.metrics import (
    MAX_CUT,
    Metric,
    MetricUnknown,
    expected_ndcg_of_chance,
    hit_rate,
    ndcg,
    parse_metric,
    ranked,
    ranking,
)

cutoffs = st.integers(1, 12)
grades = st.lists(st.integers(0, 3), max_size=12)


@pytest.mark.parametrize(
    ("relevances", "k", "expected"),
    [
        ([1, 0, 0], 10, 1.0),
        ([0, 1, 0], 10, 1 / math.log2(3)),
        ([0, 0, 1], 10, 0.5),
        ([0, 0, 1], 2, 0.0),
        ([0, 1, 1], 10, (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3))),
        ([1, 0, 1], 2, 1 / (1 + 1 / math.log2(3))),
        ([2, 0, 3], 3, (2 + 3 / 2) / (3 + 2 / math.log2(3))),
        ([0, 3], 1, 0.0),
        ([0, 0, 0], 3, 0.0),
        ([], 5, 0.0),
    ],
)
def test_ndcg_equals_a_hand_computation(relevances: list[int], k: int, expected: float) -> None:
    assert ndcg(relevances, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("relevances", "k", "expected"),
    [
        ([1, 0], 1, 1.0),
        ([0, 1], 1, 0.0),
        ([0, 1], 2, 1.0),
        ([0, 0, 2], 3, 1.0),
        ([0, 0], 9, 0.0),
        ([], 1, 0.0),
    ],
)
def test_hit_rate_equals_a_hand_computation(relevances: list[int], k: int, expected: float) -> None:
    assert hit_rate(relevances, k) == expected


@settings(max_examples=150, deadline=None)
@given(relevances=grades, k=cutoffs)
def test_a_perfect_order_has_an_ndcg_of_one(relevances: list[int], k: int) -> None:
    perfect = sorted(relevances, reverse=True)
    assert ndcg(perfect, k) == (1.0 if any(relevances) else 0.0)
    assert 0.0 <= ndcg(relevances, k) <= 1.0


@settings(max_examples=150, deadline=None)
@given(relevances=grades.filter(lambda grades: len(grades) > 1), k=cutoffs, data=st.data())
def test_moving_a_better_document_up_never_lowers_a_metric(
    relevances: list[int], k: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(1, len(relevances) - 1))
    moved = relevances.copy()
    if moved[index] > moved[index - 1]:
        moved[index - 1], moved[index] = moved[index], moved[index - 1]

    assert ndcg(moved, k) >= ndcg(relevances, k)
    assert hit_rate(moved, k) >= hit_rate(relevances, k)


@pytest.mark.parametrize("index", range(1, 10))
def test_moving_the_relevant_document_up_within_the_cutoff_raises_ndcg(index: int) -> None:
    below = [float(other == index) for other in range(10)]
    above = [float(other == index - 1) for other in range(10)]
    assert ndcg(above, 10) > ndcg(below, 10)


@settings(max_examples=100, deadline=None)
@given(relevances=grades, k=cutoffs, factor=st.sampled_from([0.5, 2, 10]))
def test_ndcg_does_not_depend_on_the_scale_of_grades(
    relevances: list[int], k: int, factor: float
) -> None:
    assert ndcg([grade * factor for grade in relevances], k) == pytest.approx(ndcg(relevances, k))


@pytest.mark.parametrize(("candidates", "k"), [(1, 10), (2, 1), (10, 10), (10, 3), (30, 10)])
def test_the_chance_level_is_the_average_over_random_orders(candidates: int, k: int) -> None:
    rng = Random(7)
    relevances = [1.0] + [0.0] * (candidates - 1)
    rounds = 20_000
    average = sum(ndcg(rng.sample(relevances, candidates), k) for _ in range(rounds)) / rounds

    assert expected_ndcg_of_chance(candidates, k) == pytest.approx(average, abs=0.01)


@pytest.mark.parametrize(("candidates", "k"), [(1, 1), (2, 1), (7, 5), (10, 10)])
def test_the_chance_level_is_the_mean_over_all_places(candidates: int, k: int) -> None:
    total = 0.0
    for rank in range(candidates):
        relevances = [0.0] * candidates
        relevances[rank] = 1.0
        total += ndcg(relevances, k)
    assert expected_ndcg_of_chance(candidates, k) == pytest.approx(total / candidates)


def test_equal_scores_keep_the_candidates_order() -> None:
    assert ranked([0.0, 2.0, 0.0, 2.0, -1.0], [1, 2, 3, 4, 5]) == [2, 4, 1, 3, 5]


@settings(max_examples=150, deadline=None)
@given(
    candidates=st.lists(
        st.tuples(st.sampled_from([-1.5, 0.0, 0.25, 3.0]), st.integers()), max_size=12
    )
)
def test_ranked_is_a_stable_sort_by_falling_score(candidates: list[tuple[float, int]]) -> None:
    scores, relevances = (
        [score for score, _ in candidates],
        [relevance for _, relevance in candidates],
    )
    expected = sorted(candidates, key=lambda candidate: -candidate[0])
    assert ranked(scores, relevances) == [relevance for _, relevance in expected]


TREC_EVAL = {"ndcg": "ndcg_cut", "recall": "recall", "hit": "success", "map": "map_cut"}


@st.composite
def judged_queries(draw: st.DrawFn) -> tuple[list[float], list[int], list[int]]:
    """Unequal scores and grades of some candidates, and grades that the first stage missed."""
    grades = draw(st.lists(st.integers(-1, 3), min_size=1, max_size=14))
    scores = draw(st.permutations([float(number) for number in range(len(grades))]))
    return scores, grades, draw(st.lists(st.integers(-1, 3), max_size=6))


def ideal_of(grades: list[int]) -> list[int]:
    return sorted((grade for grade in grades if grade > 0), reverse=True)


@settings(max_examples=150, deadline=None)
@given(query=judged_queries(), cut=cutoffs)
def test_metrics_are_those_of_trec_eval(
    query: tuple[list[float], list[int], list[int]], cut: int
) -> None:
    scores, grades, missed = query
    judged = {f"d{index}": grade for index, grade in enumerate(grades + missed)}
    run = {f"d{index}": score for index, score in enumerate(scores)}
    measures = {f"{measure}.{cut}" for measure in TREC_EVAL.values()} | {"recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, measures).evaluate({"q": run})["q"]

    ordered, ideal = np.array(grades)[ranking(scores)], ideal_of(grades + missed)
    for kind, measure in TREC_EVAL.items():
        ours = parse_metric(f"{kind}@{cut}").values(ordered, ideal)
        assert ours == pytest.approx(theirs[f"{measure}_{cut}"], abs=1e-9), kind
    assert parse_metric("mrr").values(ordered, ideal) == pytest.approx(theirs["recip_rank"])


@settings(max_examples=100, deadline=None)
@given(st.lists(judged_queries(), min_size=1, max_size=5), st.sampled_from([None, 1, 3, 10]))
def test_queries_together_have_the_values_that_they_have_alone(
    queries: list[tuple[list[float], list[int], list[int]]], cut: int | None
) -> None:
    orders = [np.array(grades)[ranking(scores)] for scores, grades, _ in queries]
    ideals = [ideal_of(grades + missed) for _, grades, missed in queries]
    relevances, ideal = np.zeros((len(queries), 20)), np.zeros((len(queries), 20))
    for row in range(len(queries)):
        relevances[row, : len(orders[row])] = orders[row]
        ideal[row, : len(ideals[row])] = ideals[row]

    for kind in ("ndcg", "mrr", "recall", "hit", "map"):
        metric = Metric(kind, cut)
        alone = [
            float(metric.values(order, best)) for order, best in zip(orders, ideals, strict=True)
        ]
        assert metric.values(relevances, ideal).tolist() == alone
        assert all(0 <= value <= 1 for value in alone)


@settings(max_examples=100, deadline=None)
@given(relevances=grades, k=cutoffs)
def test_values_are_those_of_the_functions_of_one_query(relevances: list[int], k: int) -> None:
    ideal = ideal_of(relevances)
    assert Metric("ndcg", k).values(relevances, ideal) == pytest.approx(ndcg(relevances, k))
    assert Metric("hit", k).values(relevances, ideal) == hit_rate(relevances, k)


@pytest.mark.parametrize("kind", ["ndcg", "mrr", "recall", "hit", "map"])
def test_a_query_without_candidates_or_without_relevant_documents_is_worth_nothing(
    kind: str,
) -> None:
    metric = parse_metric(f"{kind}@5")
    assert metric.values([], [1]) == 0
    assert metric.values([0, 0], []) == 0
    assert metric.values([], []) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.sampled_from([-2.0, 0.0, 3.5])), max_size=12))
def test_the_first_stage_breaks_ties_and_refused_documents_are_last(
    scores: list[float | None],
) -> None:
    scored = [index for index, score in enumerate(scores) if score is not None]
    refused = [index for index, score in enumerate(scores) if score is None]
    expected = sorted(scored, key=lambda index: -(scores[index] or 0.0)) + refused
    assert ranking(scores).tolist() == expected


@pytest.mark.parametrize("name", ["ndcg@10", "hit@5", "mrr", "map", "recall@100", "mrr@10"])
def test_a_metric_has_the_name_that_it_was_read_from(name: str) -> None:
    assert parse_metric(name).name == name


@pytest.mark.parametrize(
    "name", ["", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@1.5", "precision@5", "NDCG@10", "hit@5 ", "@5"]
)
def test_a_name_of_no_metric_is_refused(name: str) -> None:
    with pytest.raises(MetricUnknown, match="is no metric"):
        parse_metric(name)


def test_a_cut_beyond_the_bound_is_refused() -> None:
    with pytest.raises(MetricUnknown, match=f"first {MAX_CUT} candidates"):
        parse_metric(f"ndcg@{MAX_CUT + 1}")
