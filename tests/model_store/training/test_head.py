"""A head's rows are the words', and more words than two classify as the softmax over all of
them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from model_store.checkpoint import resolve
from model_store.families.family import Family
from model_store.training.config import HeadConfig, TrainingError
from model_store.training.head import LIKELIEST, Head, head_words, make_head, two_columns
from model_store.training.losses import NO, YES, sft_loss, unified_reranking_loss
from tests.conftest import TINY


@pytest.fixture(scope="module")
def family() -> Family:
    return resolve(str(TINY)).family


@pytest.fixture(scope="module")
def vocabulary() -> torch.Tensor:
    return torch.randn(16384, 8, generator=torch.Generator().manual_seed(0)).bfloat16()


def test_the_rows_are_the_labels_own(family: Family, vocabulary: torch.Tensor) -> None:
    head = make_head(HeadConfig(), vocabulary, family, seed=0)
    hidden = torch.randn(3, 8)
    wanted = (
        hidden @ vocabulary[[family.tokenizer.label("yes"), family.tokenizer.label("no")]].float().T
    )
    assert torch.equal(head(hidden), wanted)
    assert head(hidden.bfloat16()).dtype == torch.float32
    assert [parameter.requires_grad for parameter in head.parameters()] == [False]


def test_trained_heads_are_trained_and_random_ones_are_seeded(
    family: Family, vocabulary: torch.Tensor
) -> None:
    trainable = make_head(HeadConfig(kind="trainable"), vocabulary, family, seed=0)
    one, same, other = (
        make_head(HeadConfig(kind="random"), vocabulary, family, seed=seed) for seed in (1, 1, 2)
    )
    assert trainable.rows.requires_grad
    assert torch.equal(
        trainable.rows.detach(), make_head(HeadConfig(), vocabulary, family, seed=0).rows
    )
    assert one.rows.requires_grad
    assert torch.equal(one.rows, same.rows)
    assert not torch.equal(one.rows, other.rows)


def test_the_head_stays_in_single_precision_under_autocast() -> None:
    head = Head(torch.tensor([[1.0, 2**-12], [0.0, 1.0]]), trained=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.tensor([[1.0, 1.0]]))[0, 0].item() == 1 + 2**-12


def test_the_papers_words() -> None:
    labels = ("yes", "no")
    assert len({*labels, *LIKELIEST}) == 16
    assert head_words(HeadConfig(tokens=4), labels) == ("yes", "no", "No", "Yes")
    for words in (("no", "yes"), ("yes", "maybe")):
        with pytest.raises(TrainingError, match=r"head\.words must begin with yes and no"):
            head_words(HeadConfig(words=words), labels)


def test_a_word_of_two_tokens_is_refused(family: Family, vocabulary: torch.Tensor) -> None:
    with pytest.raises(TrainingError, match=r"'Yes' is 2 tokens.*head\.words can name others"):
        make_head(HeadConfig(tokens=4), vocabulary, family, seed=0)
    four = make_head(HeadConfig(words=("yes", "no", "true", "false")), vocabulary, family, seed=0)
    assert four.rows.shape == (4, 8)


@pytest.mark.parametrize("words", [2, 4, 8, 16])
def test_two_columns_have_the_loss_and_the_gradient_of_all_words(words: int) -> None:
    logits = (
        3
        * torch.randn(
            3 * 5, words, generator=torch.Generator().manual_seed(words), dtype=torch.float64
        )
    ).requires_grad_()
    relevant = torch.arange(15) % 5 == 0
    wanted = cross_entropy(logits, torch.where(relevant, YES, NO), reduction="sum") / 3
    columns = two_columns(logits, relevant).view(3, 5, 2)
    assert sft_loss(columns).item() == pytest.approx(wanted.item())
    surrogate = unified_reranking_loss(
        columns, weight="sft", direction="sft", weight_dtype=torch.float64
    )
    (ours,) = torch.autograd.grad(surrogate, logits)
    (theirs,) = torch.autograd.grad(wanted, logits)
    assert torch.allclose(ours, theirs, atol=1e-12)
