"""Maps from raw scores to probabilities: their fit to pairs whose probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import expit

from model_store.calibration.description import MAX_KNOTS, IsotonicMap, PlattMap
from model_store.calibration.fitting import (
    FOLDS,
    choose,
    fit_isotonic,
    fit_platt,
    held_out_probabilities,
    probabilities,
)
from model_store.calibration.instruction_map import MIN_QUERIES, map_of
from model_store.calibration.judged_pairs import Floats, JudgedPairs, judged_pairs
from model_store.calibration.measures import expected_calibration_error
from service import wire
from tests.model_store.calibration.judged import drawn

SCORES = st.floats(-1e4, 1e4)
QUERY = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=12)


@st.composite
def judged(draw: st.DrawFn) -> JudgedPairs:
    """A few queries, both classes among them, many of their scores equal; weighted or not."""
    queries = [[(0.0, True)], [(0.0, False)], *draw(st.lists(QUERY, max_size=8))]
    share = draw(st.none() | st.floats(0.001, 0.999))
    split = [([score for score, _ in each], [bool(is_) for _, is_ in each]) for each in queries]
    return judged_pairs(split, share)


def served(fitted: PlattMap | IsotonicMap) -> wire.PlattMap | wire.IsotonicMap:
    """The map as a gateway applies it."""
    if isinstance(fitted, PlattMap):
        return wire.PlattMap(fitted.slope, fitted.intercept)
    return wire.IsotonicMap(fitted.scores, fitted.probabilities)


def steps(scores: Floats) -> Floats:
    """Probabilities that no sigmoid has."""
    return np.where(scores < -2, 0.05, np.where(scores < 2, 0.45, 0.6))


@given(judged(), st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=30))
@settings(max_examples=60)
def test_a_map_never_falls_and_is_the_same_in_the_gateway(
    pairs: JudgedPairs, further: list[float]
) -> None:
    near = pairs.scores[:, None] + np.array([-1e-9, 0, 1e-9, 0.3])
    scores = np.sort(np.concatenate([near.ravel(), further]))
    for fitted in (fit_platt(pairs), fit_isotonic(pairs)):
        found = probabilities(fitted, scores)
        one_by_one = [served(fitted)(score) for score in scores.tolist()]

        assert (found >= 0).all()
        assert (found <= 1).all()
        assert one_by_one == sorted(one_by_one)
        assert found == pytest.approx(one_by_one, abs=1e-9)


@given(judged())
@settings(max_examples=60)
def test_isotonic_probabilities_stay_off_certainty(pairs: JudgedPairs) -> None:
    """By the odds that one further pair of each class gives, times the weights of the classes."""
    fitted = fit_isotonic(pairs)
    odds = [each / (1 - each) / pairs.odds_ratio for each in fitted.probabilities]
    most = (len(pairs.scores) + 1) * (1 + 1e-6)
    assert 1 / most <= min(odds)
    assert max(odds) <= most


@pytest.mark.parametrize("further", [0.0, 1e-9, 1e-6])
def test_scores_that_are_all_nearly_equal_have_a_map(further: float) -> None:
    queries = [([20 + further, 20.0, 20.0], [True, False, False])] * MIN_QUERIES
    found = map_of("x", judged_pairs(queries), rows="0" * 64, unfitted=None, weighted=False, seed=0)
    assert probabilities(found.map, np.array([20.0]))[0] < 0.4
    assert found.evidence.platt_log_loss < 0.7


def test_knots_are_bounded_whatever_the_pairs() -> None:
    pairs = drawn(lambda scores: scores * 0 + 0.5, 1000, 20)
    rising = JudgedPairs(
        pairs.scores,
        pairs.scores > np.random.default_rng(0).normal(0, 3, len(pairs.scores)),
        pairs.queries,
        pairs.weights,
    )
    many = np.arange(400.0)
    shares = (many + 1) / 401
    sure = JudgedPairs(  # each score has a share of its own
        np.repeat(many, 401),
        (np.arange(401) < 401 * shares[:, None]).ravel(),
        np.zeros(400 * 401, np.int64),
        np.ones(400 * 401),
    )
    assert len(fit_isotonic(rising).scores) <= MAX_KNOTS
    knots = fit_isotonic(sure)
    assert MAX_KNOTS / 2 < len(knots.scores) <= MAX_KNOTS
    assert probabilities(knots, many) == pytest.approx(shares, abs=0.01)


def test_platt_finds_the_sigmoid_that_pairs_were_drawn_with() -> None:
    fitted = fit_platt(drawn(lambda scores: expit(0.7 * scores - 1), 2000))
    assert fitted.slope == pytest.approx(0.7, abs=0.05)
    assert fitted.intercept == pytest.approx(-1, abs=0.08)


def test_scores_that_say_nothing_or_the_opposite_give_the_share_of_relevant_pairs() -> None:
    pairs = drawn(lambda scores: expit(-scores), 200)
    scores = np.array([-9.0, 0.0, 9.0])
    share = pairs.relevant_share
    assert probabilities(fit_platt(pairs), scores) == pytest.approx(share, abs=0.01)
    assert probabilities(fit_isotonic(pairs), scores) == pytest.approx(share, abs=0.01)


def test_separated_classes_give_a_finite_sigmoid() -> None:
    judged = [([5.0, -5.0], [True, False])] * 50
    fitted = fit_platt(judged_pairs(judged))
    low, high = probabilities(fitted, np.array([-5.0, 5.0]))
    assert 0.01 < low < 0.05
    assert 0.95 < high < 0.99


@pytest.mark.parametrize(("truth", "kind"), [(expit, "platt"), (steps, "isotonic")])
def test_the_kind_with_the_smaller_held_out_loss_is_chosen(truth: object, kind: str) -> None:
    pairs = drawn(truth, 400)  # type: ignore[arg-type]
    chosen, held_out = choose(pairs, *held_out_probabilities(pairs, 0))
    assert chosen.kind == kind
    assert expected_calibration_error(held_out, pairs) < 0.03


def test_scores_that_are_calibrated_already_are_left_as_they_are() -> None:
    """Few pairs give worse maps than the sigmoid that the pairs were drawn with."""
    own = PlattMap(slope=1, intercept=0)
    pairs = drawn(expit, 20)
    maps = held_out_probabilities(pairs, 0)
    chosen, held_out = choose(pairs, *maps, own)
    assert chosen == own
    assert held_out == pytest.approx(expit(pairs.scores))

    wrong = PlattMap(slope=3, intercept=2)
    assert choose(pairs, *maps, wrong) == choose(pairs, *maps)


def test_a_pair_is_held_out_with_its_query() -> None:
    """Scores that name their query: maps that had seen the others of a query would know them."""
    generator = np.random.default_rng(0)
    answers = [bool(answer) for answer in generator.random(200) < 0.5]
    judged = [([float(n), float(n)], [answer, answer]) for n, answer in enumerate(answers)]
    _, isotonic = held_out_probabilities(judged_pairs(judged), 0)
    right = np.repeat(answers, 2) == (isotonic > 0.5)
    assert right.mean() < 0.65


def test_classes_that_are_rare_are_in_the_rest_of_every_fold() -> None:
    """Both classes in as few queries as are allowed, and those side by side."""
    judged = [([1.0, 0.0], [True, False])] * MIN_QUERIES + [([2.0], [True])] * 400
    platt, isotonic = held_out_probabilities(judged_pairs(judged), 3)
    assert np.isfinite(platt).all()
    assert np.isfinite(isotonic).all()
    assert FOLDS < MIN_QUERIES


def test_weights_move_probabilities_to_another_share_of_relevant_pairs() -> None:
    """By Bayes: with half of the odds before a score is known, half of them after."""
    pairs = drawn(expit, 3000)
    judged = [
        (pairs.scores[pairs.queries == n].tolist(), pairs.relevant[pairs.queries == n].tolist())
        for n in range(pairs.count_queries)
    ]
    share = pairs.relevant_share
    odds = share / (1 - share) / 10
    rarer = judged_pairs(judged, odds / (1 + odds))

    rare = judged_pairs(judged[:60], 1e-4)
    assert fit_platt(rare).intercept == pytest.approx(np.log(rare.odds_ratio), abs=0.5)
    assert fit_isotonic(rare).probabilities[0] < 1e-4, "a rare class is no uncertainty"

    scores = np.linspace(-3, 6, 7)
    expected = expit(scores - np.log(10))
    assert rarer.relevant_share == pytest.approx(odds / (1 + odds))
    assert probabilities(fit_platt(rarer), scores) == pytest.approx(expected, abs=0.02)
    assert probabilities(fit_isotonic(rarer), scores) == pytest.approx(expected, abs=0.07)


def test_equal_seeds_give_equal_maps() -> None:
    pairs = drawn(expit, 50)

    def fitted(seed: int) -> object:
        return map_of("find", pairs, rows="0" * 64, unfitted=None, weighted=False, seed=seed)

    assert fitted(1) == fitted(1)
    assert fitted(1) != fitted(2)


@pytest.mark.parametrize(
    "knots",
    [
        {"scores": [0, 0], "probabilities": [0.1, 0.2]},
        {"scores": [0, 1], "probabilities": [0.2, 0.1]},
        {"scores": [0], "probabilities": [0.1, 0.2]},
        {"scores": [], "probabilities": []},
        {"scores": [0, float("inf")], "probabilities": [0, 1]},
        {"scores": list(range(257)), "probabilities": [0.5] * 257},
    ],
)
def test_a_map_that_falls_or_is_not_finite_is_refused(knots: dict[str, list[float]]) -> None:
    with pytest.raises(ValidationError):
        IsotonicMap.model_validate(knots)
