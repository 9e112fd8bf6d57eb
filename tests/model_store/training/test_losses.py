"""The losses equal the paper's equations written out by hand, and the unified loss has the
gradients of those that it unifies."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_store.training.losses import (
    Direction,
    Weight,
    cl_loss,
    loss_weights,
    sft_loss,
    unified_reranking_loss,
)

logit = st.floats(-8, 8, width=32)
Documents = list[tuple[float, float]]


@st.composite
def batches(draw: st.DrawFn) -> list[Documents]:
    negatives = draw(st.integers(1, 32))
    example = st.lists(st.tuples(logit, logit), min_size=negatives + 1, max_size=negatives + 1)
    return draw(st.lists(example, min_size=1, max_size=3))


def sft_by_hand(example: Documents) -> float:
    total = 0.0
    for place, (yes, no) in enumerate(example):
        total -= math.log(math.exp(yes if place == 0 else no) / (math.exp(yes) + math.exp(no)))
    return total


def cl_by_hand(example: Documents) -> float:
    return -math.log(math.exp(example[0][0]) / sum(math.exp(yes) for yes, _ in example))


def tensor(batch: list[Documents], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(batch, dtype=dtype, requires_grad=True)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


@settings(max_examples=100, deadline=None)
@given(batches())
def test_the_true_losses_equal_the_equations(batch: list[Documents]) -> None:
    logits = tensor(batch)
    for loss, by_hand in ((sft_loss, sft_by_hand), (cl_loss, cl_by_hand)):
        assert loss(logits).item() == pytest.approx(
            sum(map(by_hand, batch)) / len(batch), rel=1e-6, abs=1e-9
        )


@settings(max_examples=200, deadline=None)
@given(batches())
def test_the_unified_loss_has_the_true_losses_gradients_in_single_precision(
    batch: list[Documents],
) -> None:
    logits = tensor(batch, torch.float32)
    sft = gradient(unified_reranking_loss(logits, weight="sft", direction="sft"), logits)
    cl = gradient(unified_reranking_loss(logits, weight="cl", direction="cl"), logits)
    assert (sft - gradient(sft_loss(logits), logits)).abs().max() <= 1e-6
    assert (cl - gradient(cl_loss(logits), logits)).abs().max() <= 1e-6


@settings(max_examples=100, deadline=None)
@given(batches(), st.sampled_from(get_args(Weight)), st.sampled_from(get_args(Direction)))
def test_the_gradient_is_the_weight_along_the_direction(
    batch: list[Documents], weight: Weight, direction: Direction
) -> None:
    logits, tau = tensor(batch), 1e-3 if weight == "base_masked" else None
    found = gradient(
        unified_reranking_loss(logits, weight=weight, direction=direction, tau=tau), logits
    )
    scales = loss_weights(logits.detach(), weight, tau=tau).double() / len(batch)
    scales[:, 0] *= -1
    assert torch.allclose(found[..., 0], scales)
    assert torch.allclose(
        found[..., 1], -scales if direction == "sft" else torch.zeros_like(scales)
    )


@settings(max_examples=100, deadline=None)
@given(batches())
def test_weights_are_those_of_the_paper(batch: list[Documents]) -> None:
    logits = tensor(batch)
    cl, sft, base = (
        loss_weights(logits, weight, dtype=torch.float64) for weight in ("cl", "sft", "base")
    )  # type: ignore[arg-type]
    assert torch.allclose(cl[:, 0], cl[:, 1:].sum(dim=1))
    assert torch.equal(base[:, 0], torch.ones(len(batch), dtype=torch.float64))
    assert torch.allclose(base[:, 1:].sum(dim=1), torch.ones(len(batch), dtype=torch.float64))
    assert torch.equal(loss_weights(logits, "base_cl", dtype=torch.float64), cl)
    assert torch.allclose(loss_weights(logits, "base_sft", dtype=torch.float64), base * sft)
    yes = logits.detach().softmax(dim=2)[..., 0]
    hot = torch.exp(yes[:, 1:] / 0.05)
    assert torch.allclose(base[:, 1:], hot / hot.sum(dim=1, keepdim=True))
    assert torch.allclose(sft[:, 0], 1 - yes[:, 0])
    assert torch.allclose(sft[:, 1:], yes[:, 1:])
    assert all((weights >= 0).all() for weights in (cl, sft, base))


def test_the_mask_leaves_out_what_is_mastered() -> None:
    logits = torch.tensor(
        [[[8.0, 0.0], [0.0, 8.0], [0.0, 0.0]], [[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]]
    )
    masked = loss_weights(logits, "base_masked", tau=1e-2)
    assert (masked > 0).tolist() == [[False, False, True], [True, True, False]]
    assert (loss_weights(logits, "base_masked", tau=1e-5) > 0).all()


@pytest.mark.parametrize(("weight", "tau"), [("base_masked", None), ("sft", 1e-3)])
def test_tau_goes_with_the_mask(weight: Weight, tau: float | None) -> None:
    with pytest.raises(ValueError, match="tau"):
        unified_reranking_loss(torch.zeros(1, 2, 2), weight=weight, direction="sft", tau=tau)


def test_no_gradient_passes_through_the_weights() -> None:
    logits = tensor([[(0.5, 0.1), (0.2, 0.4)]])
    second = torch.autograd.grad(
        unified_reranking_loss(logits, weight="sft", direction="sft"),
        logits,
        create_graph=True,
        allow_unused=True,
    )[0]
    assert not second.requires_grad


def test_wide_gaps_keep_their_weight() -> None:
    """At a gap of 21, 1 - softmax is exactly 0 in half precision and off by 1e-3 of itself in
    single."""
    others = math.exp(-11) + math.exp(-21)
    logits = torch.tensor([[[21.0, 0.0], [10.0, 0.0], [0.0, 0.0]]])
    assert loss_weights(logits, "cl")[0, 0].item() == pytest.approx(others / (1 + others), rel=1e-5)
    assert loss_weights(logits, "sft")[0, 0].item() == pytest.approx(math.exp(-21), rel=1e-5)
    assert loss_weights(logits, "cl", dtype=torch.float16)[0, 0].item() > 0


def test_huge_logits_stay_finite() -> None:
    assert sft_loss(tensor([[(1e4, 0.0), (0.0, 1e4)]])).item() == 0.0
    assert sft_loss(tensor([[(-1e4, 0.0), (1e4, 0.0)]])).item() == pytest.approx(2e4)
    for weight in ("sft", "cl", "base", "base_cl", "base_sft"):
        logits = tensor([[(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4)]])
        loss = unified_reranking_loss(logits, weight=weight, direction="sft")  # type: ignore[arg-type]
        assert gradient(loss, logits).isfinite().all()
