"""The SFT loss equals the paper's equation 4, written out by hand over the two labels' logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.training.losses import sft_loss

logit = st.floats(-8, 8, width=32)
label_logits = st.tuples(logit, logit)


def by_hand(examples: list[list[tuple[float, float]]]) -> float:
    """The mean over examples of -log p(yes) of the first document and -log p(no) of the others."""
    losses = []
    for documents in examples:
        total = 0.0
        for place, (yes, no) in enumerate(documents):
            wanted = yes if place == 0 else no
            total -= math.log(math.exp(wanted) / (math.exp(yes) + math.exp(no)))
        losses.append(total)
    return sum(losses) / len(losses)


def loss_of(examples: list[list[tuple[float, float]]]) -> float:
    differences = [[yes - no for yes, no in documents] for documents in examples]
    return float(sft_loss(torch.tensor(differences, dtype=torch.float64)))


def test_undecided_logits_cost_log_two_a_document() -> None:
    assert loss_of([[(0.0, 0.0)] * 3]) == pytest.approx(3 * math.log(2))


def test_one_example_by_hand() -> None:
    expected = -math.log(math.e**2 / (math.e**2 + math.e**-1)) - math.log(math.e**0.5 / (math.e**1.5 + math.e**0.5))
    assert loss_of([[(2.0, -1.0), (1.5, 0.5)]]) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), examples=st.integers(1, 4), documents=st.integers(1, 5))
def test_it_equals_the_equation(data: st.DataObject, examples: int, documents: int) -> None:
    rows = data.draw(
        st.lists(st.lists(label_logits, min_size=documents, max_size=documents), min_size=examples, max_size=examples)
    )
    assert loss_of(rows) == pytest.approx(by_hand(rows), rel=1e-6, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(documents=st.lists(label_logits, min_size=1, max_size=4), shift=logit)
def test_only_the_difference_of_the_labels_counts(documents: list[tuple[float, float]], shift: float) -> None:
    shifted = [(yes + shift, no + shift) for yes, no in documents]
    assert loss_of([shifted]) == pytest.approx(loss_of([documents]), rel=1e-6, abs=1e-9)


def test_its_gradient_is_the_papers_weight() -> None:
    logits = torch.tensor([[0.7, -0.2, 1.3]], dtype=torch.float64, requires_grad=True)
    sft_loss(logits).backward()
    positive, *negatives = logits.detach()[0].sigmoid().tolist()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([positive - 1, *negatives])


def test_huge_logits_stay_finite() -> None:
    assert loss_of([[(1e4, 0.0), (0.0, 1e4)]]) == 0.0
    assert loss_of([[(-1e4, 0.0), (1e4, 0.0)]]) == pytest.approx(2e4)
