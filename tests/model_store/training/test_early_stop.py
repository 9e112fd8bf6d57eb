"""The early stop of a run: decided by nDCG@10 alone, the same after a resume, with the best
state."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model_store.training.config import EarlyStopConfig
from model_store.training.early_stop import Best, EarlyStop

values = st.lists(st.integers(0, 20).map(lambda value: value / 20), min_size=1, max_size=30)


def weights(step: int) -> dict[str, Tensor]:
    return {"a": torch.full((2,), float(step))}


def followed(gains: list[float], config: EarlyStopConfig) -> tuple[int, EarlyStop]:
    """The number of evaluations until the end, and the state then."""
    stop = EarlyStop(config)
    for number, gain in enumerate(gains):
        stop.add(number, gain, partial(weights, number))
        if stop.is_over:
            return number + 1, stop
    return len(gains), stop


@given(values, st.integers(1, 6), st.sampled_from([0.0, 0.1, 0.3]))
def test_it_ends_after_its_patience_and_keeps_the_first_best_state(
    gains: list[float], patience: int, least_gain: float
) -> None:
    config = EarlyStopConfig(patience=patience, least_gain=least_gain)
    seen, stop = followed(gains, config)
    made = gains[:seen]

    reference, waited = made[0], 0
    for gain in made[1:]:
        assert waited < patience
        waited = 0 if gain > reference + least_gain else waited + 1
        reference = gain if waited == 0 else reference
    assert stop.is_over == (waited >= patience)
    assert stop.is_over or seen == len(gains)

    assert stop.best is not None
    best = made.index(max(made))
    assert (stop.best.evaluations.best_step, stop.best.evaluations.best_ndcg) == (best, max(made))
    assert torch.equal(stop.best.weights["a"], weights(best)["a"])


@given(values, st.integers(0, 29), st.integers(1, 4))
def test_a_resumed_run_ends_where_an_undisturbed_one_does(
    gains: list[float], cut: int, patience: int
) -> None:
    config = EarlyStopConfig(patience=patience)
    seen, undisturbed = followed(gains, config)
    cut = min(cut, seen)
    before = EarlyStop(config)
    for number in range(cut):
        before.add(number, gains[number], partial(weights, number))

    after = EarlyStop(config, before.best)
    for number in range(cut, seen):
        assert not after.is_over
        after.add(number, gains[number], partial(weights, number))
    assert after.is_over == undisturbed.is_over
    assert isinstance(after.best, Best)
    assert isinstance(undisturbed.best, Best)
    assert after.best.evaluations == undisturbed.best.evaluations
    assert torch.equal(after.best.weights["a"], undisturbed.best.weights["a"])


def test_the_kept_state_is_not_what_the_next_step_changes() -> None:
    live = weights(1)
    stop = EarlyStop(EarlyStopConfig())
    stop.add(1, 0.5, lambda: live)
    live["a"].fill_(9.0)
    assert stop.best is not None
    assert torch.equal(stop.best.weights["a"], weights(1)["a"])


def test_the_reason_is_a_sentence() -> None:
    _, stop = followed([0.5, 0.6, 0.55], EarlyStopConfig(patience=1, least_gain=0.01))
    assert stop.reason() == (
        "nDCG@10 of held-out rows did not rise by more than 0.01 in 1 evaluation: the best was"
        " 0.6000 after step 1."
    )
