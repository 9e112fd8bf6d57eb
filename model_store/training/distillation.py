"""Losses towards a teacher's scores, as pure functions of scores; they are not the paper's.

Depends on tensors alone: `scores[examples, documents]` of the model in training and `teacher` of
the same shape; row 0 of each example is its relevant document. A loss is averaged over examples.
Invariant: neither loss changes where a constant is added to an example's scores or to its
teacher's, and both are smallest where the two differ by a constant.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import kl_div

Distillation = Literal["margin_mse", "kl"]
"""`margin_mse` is of margins to the relevant document (Hofstaetter et al., 2020, "Improving
efficient neural ranking models with cross-architecture knowledge distillation"), `kl` of
distributions over an example's documents (Hinton et al., 2015, "Distilling the knowledge in a
neural network")."""


def teacher_loss(
    scores: Tensor, teacher: Tensor, *, kind: Distillation, temperature: float = 1.0
) -> Tensor:
    """The loss of a kind; the teacher's scores are divided by `temperature`, the model's are
    not."""
    wanted = teacher / temperature
    return margin_mse(scores, wanted) if kind == "margin_mse" else listwise_kl(scores, wanted)


def margin_mse(scores: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the margins between the relevant document and each other one."""
    margins = scores[:, :1] - scores[:, 1:]
    wanted = teacher[:, :1] - teacher[:, 1:]
    return (margins - wanted).square().mean()


def listwise_kl(scores: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence from the softmax of an example's teacher scores to that of its scores."""
    return kl_div(
        scores.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
    )
