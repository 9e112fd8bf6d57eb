"""The losses of the paper, as pure functions of logits.

Depends on tensors alone: `logits[examples, documents, 2]` with the columns yes and no; row 0 of
each example is its relevant document. A loss is summed over an example's documents and averaged
over examples, so that more negatives make larger steps, as in the paper (algorithm 1, line 20).
Invariant: with the weight and the direction of one loss, the unified loss has the gradient of that
loss.

Derivation: the gradient of either loss with respect to a document's logits is a scalar times a
fixed vector (appendix A.2, eq. 16 to 18). For SFT (eq. 4) let p = softmax(yes, no). The relevant
document has (p_yes - 1, p_no) = p_no (-1, 1), any other (p_yes, -p_yes) = p_yes (1, -1). For CL
(eq. 3) let s = softmax of yes over documents. The relevant document has s_0 - 1, which is minus the
sum of all other s_i, for yes alone, and any other s_i. The scalars are the weights (eq. 10 to 13),
detached; the vectors are the direction.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

YES, NO = 0, 1
"""Columns of logits."""

Weight = Literal["sft", "cl", "base", "base_masked", "base_cl", "base_sft"]
"""The size of a step for each document: sft is eq. 12 and 13, cl eq. 10 and 11, base eq. 14; the
others are table 2's additions to eq. 14."""
Direction = Literal["sft", "cl"]
"""The direction of a step: sft is along yes - no, cl along yes alone (section 3.3)."""


def sft_loss(logits: Tensor) -> Tensor:
    """The true SFT loss (paper, eq. 4): cross-entropy, where the relevant document's label is yes
    and that of all others is no."""
    labels = torch.full(logits.shape[:2], NO, device=logits.device)
    labels[:, 0] = YES
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / len(logits)


def cl_loss(logits: Tensor) -> Tensor:
    """The true CL loss (paper, eq. 3): InfoNCE over an example's documents by their yes logits."""
    relevant = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return cross_entropy(logits[..., YES], relevant)


def unified_reranking_loss(
    logits: Tensor,
    *,
    weight: Weight,
    direction: Direction,
    tau: float | None = None,
    beta: float = 0.05,
    weight_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The unified reranking loss (paper, algorithm 1): its gradient is that of a loss, its value is
    not.

    `tau` is the threshold of the mask of `base_masked`, `beta` the temperature of the base weights
    (both appendix B.2). Weights are computed in `weight_dtype` (table 5).

    Two lines of the algorithm are read otherwise than printed. Line 4 is "softmax over the two
    labels, the column of yes", and line 8 "softmax over the documents, of the column of yes": with
    the layout of line 12, the printed ones take the relevant document alone.
    """
    weights = loss_weights(logits.detach(), weight, tau=tau, beta=beta, dtype=weight_dtype)
    return weighted_loss(logits, weights.to(logits.dtype), direction)


def weighted_loss(logits: Tensor, weights: Tensor, direction: Direction) -> Tensor:
    """The unified loss for weights that were computed before, `[examples, documents]`, detached
    (paper, algorithm 1, lines 12 to 20)."""
    along = logits[..., YES] - logits[..., NO] if direction == "sft" else logits[..., YES]
    signs = torch.ones_like(along)
    signs[:, 0] = -1
    return (weights * signs * along).sum(dim=1).mean()


def loss_weights(
    logits: Tensor,
    weight: Weight,
    *,
    tau: float | None = None,
    beta: float = 0.05,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """W+ in column 0 and W- in all others, `[examples, documents]`, none below 0 (paper, eq. 10 to
    14, and figure 3)."""
    if (tau is not None) != (weight == "base_masked"):
        raise ValueError("tau goes with base_masked, and base_masked needs it")

    scores = logits.to(dtype)
    match weight:
        case "sft":
            return _sft(scores)
        # the CL weights added to the base replace it: W+ must equal the sum of W- (appendix B.2)
        case "cl" | "base_cl":
            return _cl(scores)
        case "base":
            return _base(scores, beta)
        case "base_sft":
            return _base(scores, beta) * _sft(scores)
        case "base_masked":
            assert tau is not None
            return _base(scores, beta) * _mask(scores, tau)


def _relevance(scores: Tensor) -> Tensor:
    """s(h), the probability of yes among the two labels (appendix B.2)."""
    return scores.softmax(dim=2)[..., YES]


def _sft(scores: Tensor) -> Tensor:
    """Eq. 12 and 13. W+ is p(no) itself: 1 - p(yes) is 0 where p(yes) rounds to 1."""
    probabilities = scores.softmax(dim=2)
    return torch.cat([probabilities[:, :1, NO], probabilities[:, 1:, YES]], dim=1)


def _cl(scores: Tensor) -> Tensor:
    """Eq. 10 and 11. W+ is the sum of the others' s: 1 - s[0] is 0 where s[0] rounds to 1."""
    others = scores[..., YES].softmax(dim=1)[:, 1:]
    return torch.cat([others.sum(dim=1, keepdim=True), others], dim=1)


def _base(scores: Tensor, beta: float) -> Tensor:
    """Eq. 14 with the temperature of appendix B.2."""
    others = (_relevance(scores)[:, 1:] / beta).softmax(dim=1)
    return torch.cat([torch.ones_like(others[:, :1]), others], dim=1)


def _mask(scores: Tensor, tau: float) -> Tensor:
    """The mask of section 4.1: 0 for a document that the model classifies well already, else 1."""
    relevance = _relevance(scores)
    return torch.cat([relevance[:, :1] <= 1 - tau, relevance[:, 1:] >= tau], dim=1).to(scores.dtype)
