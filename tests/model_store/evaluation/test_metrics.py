"""Ranking metrics equal what a hand computes, and behave as rankings do."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.evaluation.metrics import expected_ndcg_of_chance, hit_rate, ndcg, ranked

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
