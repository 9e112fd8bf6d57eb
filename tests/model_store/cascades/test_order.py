"""The keep rule and the order of a cascade: total, monotone, deterministic, and independent of the
documents' order but for ties, which count by index."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from model_store.cascades.agreement import discordance, overlap
from model_store.cascades.description import KeepRule, Stage
from model_store.cascades.keep_rule import kept, next_stage
from model_store.cascades.total_order import total_order

SCORES = st.floats(-1e30, 1e30) | st.integers(-3, 3).map(float)
RANKED = st.lists(SCORES, max_size=40).map(lambda scores: dict(enumerate(scores)))
RULES = st.builds(KeepRule, share=st.floats(0.01, 0.99), at_least=st.integers(1, 50)) | st.builds(
    KeepRule, margin=st.floats(0, 100), rank=st.integers(1, 50), at_least=st.integers(1, 50)
)


@st.composite
def cascades(draw: st.DrawFn) -> list[dict[int, float]]:
    """The scores of two to four stages, each of a part of the documents of the one before."""
    scores = [draw(RANKED)]
    for _ in range(draw(st.integers(1, 3))):
        indices = [index for index in scores[-1] if draw(st.booleans())]
        scores.append({index: draw(SCORES) for index in indices})
    return scores


@given(cascades())
def test_every_document_is_placed_once_and_a_later_stage_above_an_earlier_one(
    stages: list[dict[int, float]],
) -> None:
    order = total_order(stages)
    assert sorted(placed.index for placed in order) == sorted(stages[0])
    assert [placed.stage for placed in order] == sorted(
        (placed.stage for placed in order), reverse=True
    )
    assert [(-placed.score, placed.index) for placed in order] == sorted(
        (-placed.score, placed.index) for placed in order
    )
    for better, worse in pairwise(order):
        assert better.stage == worse.stage or better.score > worse.score


@given(cascades())
def test_scores_are_monotone_within_a_stage_and_those_of_the_last_stay(
    stages: list[dict[int, float]],
) -> None:
    order = total_order(stages)
    for placed in order:
        own = stages[placed.stage][placed.index]
        assert placed.score <= own
        if placed.stage == len(stages) - 1:
            assert placed.score == own
        for other in order:
            if other.stage == placed.stage and stages[other.stage][other.index] < own:
                assert other.score <= placed.score


@given(cascades(), st.randoms())
def test_the_order_in_which_documents_are_given_decides_nothing(
    stages: list[dict[int, float]], dice: Random
) -> None:
    shuffled = []
    for stage in stages:
        entries = list(stage.items())
        dice.shuffle(entries)
        shuffled.append(dict(entries))
    assert total_order(shuffled) == total_order(stages)


@given(cascades())
def test_stages_that_agree_keep_all_their_scores(stages: list[dict[int, float]]) -> None:
    """Nothing is lowered where every earlier score is below already."""
    level: dict[int, float] = {}
    apart = []
    for number, stage in enumerate(stages):
        level = {index: 10.0 * number + math.tanh(score) for index, score in stage.items()}
        apart.append(level)
    assert all(placed.score == apart[placed.stage][placed.index] for placed in total_order(apart))


def test_an_earlier_stage_is_lowered_by_one_amount() -> None:
    order = total_order([{0: 5.0, 1: 3.0, 2: 4.0, 3: 1.0}, {0: 2.0, 2: 2.5}])
    scores = {placed.index: placed.score for placed in order}
    assert [placed.index for placed in order] == [2, 0, 1, 3]
    assert scores[0] == 2.0
    assert scores[1] == math.nextafter(2.0, -math.inf)
    assert scores[3] == 0.0


@given(RANKED, RULES)
def test_the_best_documents_are_kept_and_as_many_as_the_rule_says(
    scores: dict[int, float], rule: KeepRule
) -> None:
    chosen = kept(scores, rule)
    best = sorted(scores, key=lambda index: (-scores[index], index))
    assert chosen == sorted(best[: len(chosen)])
    assert len(chosen) >= min(rule.at_least, len(scores))
    if rule.share is not None and scores:
        assert len(chosen) <= max(rule.at_least, math.ceil(rule.share * len(scores)))
    if rule.margin is not None and rule.rank is not None and scores:
        edge = scores[best[min(rule.rank, len(best)) - 1]] - rule.margin
        assert {index for index, score in scores.items() if score >= edge} <= set(chosen)


def test_a_share_of_a_whole_number_keeps_that_number() -> None:
    assert len(kept(dict.fromkeys(range(30), 0.0), KeepRule(share=0.1, at_least=1))) == 3


def stage(model: str, **fields: object) -> Stage:
    return Stage.model_validate({"model": model, "version": "sha256:" + "0" * 64, **fields})


def test_a_stage_without_effect_is_left_out() -> None:
    rule = {"share": 0.25, "at_least": 4}
    smaller = [stage("big", max_pixels=784, keep=rule), stage("big")]
    assert next_stage(smaller, 0, 100, pictures=True) == 0
    assert next_stage(smaller, 0, 4, pictures=True) == 1, "all would be kept"
    assert next_stage(smaller, 0, 100, pictures=False) == 1, "texts have one size"
    other = [stage("small", keep=rule), stage("big")]
    assert next_stage(other, 0, 100, pictures=False) == 0


@given(st.permutations(range(12)), st.permutations(range(12)))
def test_agreement_is_that_of_its_definition(first: list[int], second: list[int]) -> None:
    rank = {document: place for place, document in enumerate(second)}
    pairs = [(a, b) for place, a in enumerate(first) for b in first[place + 1 :]]
    swapped = sum(rank[a] > rank[b] for a, b in pairs)
    assert discordance(first, second) == swapped / len(pairs) == discordance(second, first)
    assert overlap(first, second) == len({*first[:10]} & {*second[:10]}) / 10


def test_opposite_orders_disagree_in_full() -> None:
    assert discordance([0, 1, 2], [2, 1, 0]) == 1
    assert discordance([0, 1, 2], [0, 1, 2]) == 0
    assert overlap([0, 1, 2], [2, 1, 0]) == 1, "three documents are all among the best ten"
