"""The losses of the paper, as pure functions of logits.

Knows tensors alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def sft_loss(logits: Tensor) -> Tensor:
    """The true SFT loss (paper, eq. 4): cross-entropy of yes or no for each document, summed over documents, mean over examples.

    Takes logit(yes) - logit(no), `[examples, documents]`, the relevant document in column 0. Cross-entropy over the two labels
    depends on that difference alone.
    """
    truths = torch.zeros_like(logits)
    truths[:, 0] = 1
    return binary_cross_entropy_with_logits(logits, truths, reduction="none").sum(dim=1).mean()
