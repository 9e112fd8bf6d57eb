"""The reward of ERank's second stage, against groups that are computed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.families.readout import GeneratedScore
from model_store.training.erank.rewards import (
    RewardConfig,
    Rollout,
    ranks,
    rewards,
    score_of,
    without_variance,
)

CONFIG = RewardConfig(format_penalty=2.0, above_positive_penalty=1.0, error_unit=10.0)
READOUT = GeneratedScore(lowest=0, highest=10, max_tokens=2048)


def positive(*scores: int | None) -> list[Rollout]:
    return [Rollout(True, score, None) for score in scores]


def negative(before: float | None, *scores: int | None) -> list[Rollout]:
    return [Rollout(False, score, before) for score in scores]


def test_a_positive_gets_its_reciprocal_rank_and_a_negative_above_it_a_penalty() -> None:
    # ranks: 9 -> 1, 8 -> 2, 5 -> 3, 3 -> 4, 2 -> 5, 0 -> 6
    rollouts = [*positive(8, 3), *negative(4.0, 9, 5), *negative(1.0, 2, 0)]
    assert rewards(rollouts, CONFIG) == pytest.approx(
        [1 / 2, 1 / 4, -1.0, -1.0, -(0.1**2), -(0.1**2)]
    )


def test_ties_have_the_least_rank_of_their_own() -> None:
    assert ranks([7, 9, 7, 7, 2]) == [2, 1, 2, 2, 5]
    # a negative that is level with the last positive is not above it
    rollouts = [*positive(7, 9), *negative(7.0, 7, 2)]
    assert rewards(rollouts, CONFIG) == pytest.approx([1 / 2, 1.0, 0.0, -(0.5**2)])


def test_an_answer_without_a_number_is_penalised_and_takes_no_rank() -> None:
    rollouts = [*positive(None, 6), *negative(3.0, None, 5)]
    assert rewards(rollouts, CONFIG) == pytest.approx([-2.0, 1.0, -2.0, -(0.2**2)])


def test_no_negative_is_above_positives_that_wrote_no_number() -> None:
    rollouts = [*positive(None, None), *negative(10.0, 10), *negative(None, 4)]
    assert rewards(rollouts, CONFIG) == pytest.approx([-2.0, -2.0, 0.0, 0.0])


def test_equal_scores_reward_every_positive_fully_and_no_negative_for_its_rank() -> None:
    rollouts = [*positive(5, 5), *negative(8.0, 5, 5)]
    assert rewards(rollouts, CONFIG) == pytest.approx([1.0, 1.0, -(0.3**2), -(0.3**2)])


def test_a_negative_is_compared_with_the_lowest_of_several_positives() -> None:
    # ranks: 9 -> 1, 6 -> 2, 4 -> 3, 1 -> 4; the largest of a positive is 4
    rollouts = [*positive(9), *positive(1), *negative(6.0, 6), *negative(4.0, 4)]
    assert rewards(rollouts, CONFIG) == pytest.approx([1.0, 1 / 4, -1.0, -1.0])


def test_the_constants_are_settings() -> None:
    config = RewardConfig(format_penalty=5.0, above_positive_penalty=3.0, error_unit=2.0)
    rollouts = [*positive(5), *negative(0.0, 7, 1, None)]
    assert rewards(rollouts, config) == pytest.approx([1 / 2, -3.0, -0.25, -5.0])


@given(
    st.lists(
        st.builds(
            Rollout,
            st.booleans(),
            st.none() | st.integers(0, 10),
            st.none() | st.floats(0, 10),
        ),
        max_size=30,
    ),
    st.randoms(),
)
def test_the_order_of_answers_does_not_matter(
    rollouts: list[Rollout], random: st.DataObject
) -> None:
    shuffled = list(range(len(rollouts)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = rewards([rollouts[number] for number in shuffled], CONFIG)
    in_order = rewards(rollouts, CONFIG)
    assert found == [in_order[number] for number in shuffled]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>so</think><answer>7</answer>", 7),
        (" <think>a\nb</think>\n<answer> 10 </answer>\n", 10),
        ("<think></think><answer>0</answer>", 0),
        ("<think>so</think><answer>11</answer>", None),
        ("<think>so</think><answer>-3</answer>", None),
        ("<think>so</think><answer>7.5</answer>", None),
        ("<think>so</think><answer>seven</answer>", None),
        ("<think>so</think><answer></answer>", None),
        ("<think>so</think><answer>7</answer> and more", 7),
        ("<think>so</think> well <answer>7</answer>", None),
        ("<think>so <answer>7</answer>", None),
        ("<answer>7</answer>", None),
        ("7", None),
        ("", None),
    ],
)
def test_only_the_required_form_has_a_score(text: str, score: int | None) -> None:
    assert score_of(text, READOUT) == score


def test_groups_without_variance_are_counted() -> None:
    assert without_variance([1.0, 1.0, 0.5, 1.0, -2.0, -2.0], 2) == 2
    assert without_variance([0.25] * 6, 3) == 2
    assert without_variance([0.0, 1e-3], 2) == 0
