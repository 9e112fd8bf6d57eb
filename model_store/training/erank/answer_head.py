"""The vocabulary's head on answers alone, where TRL has no kernel for that: on CPUs.

TRL computes the logits of every position of a prompt there, which costs several times as much as
the rest of a small network. Depends on tensors and TRL's output, not on a method. Invariant: the
values are those of TRL's own forward pass, zero where no label is.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

IGNORED = -100
"""The label of a token that is not taught."""


def score_answers_alone(network: Any, temperature: float) -> None:
    """Change how `network` computes the probabilities of labels, after TRL has made its own."""
    by_trl = network.forward

    @functools.wraps(by_trl)
    def forward(
        *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, **options: Any
    ) -> Any:
        if not fused_lm_head or labels is None or labels.device.type != "cpu":
            return by_trl(*args, fused_lm_head=fused_lm_head, labels=labels, **options)

        options["use_cache"] = False
        hidden = network.base_model(*args, **options).last_hidden_state[:, :-1]
        following = labels[:, 1:]
        return _scored(hidden, following, network.get_output_embeddings(), temperature)

    network.forward = forward


def _scored(hidden: Tensor, labels: Tensor, head: Any, temperature: float) -> Any:
    """`hidden` is `[rows, tokens, hidden]`, `labels` `[rows, tokens]`."""
    mask = labels != IGNORED
    logits = head(hidden[mask]).float() / temperature
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, labels[mask][:, None])[:, 0]
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        right = torch.eq(logits.argmax(-1), labels[mask])

    def spread(values: Tensor) -> Tensor:
        # keeps the output connected to the network where no position has a label
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    log_probs = spread(chosen)
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / mask.sum().clamp(min=1),
        log_probs=log_probs,
        entropy=spread(entropy),
        is_top1=spread(right),
        label_mask=mask,
    )
