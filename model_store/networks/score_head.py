"""Raw scores of pairs from their last hidden states, by a loaded network's weights.

Depends on read-outs and a network's tensors, not on prompts. Invariant: the arithmetic is fp32, and
a row's score does not depend on the other rows, not even in its last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from model_store.families.readout import ReadOut, TwoLayerHead
from model_store.networks.score_row import score_row

if TYPE_CHECKING:
    from torch import Tensor

ScoreHeadFunction = Callable[["Tensor"], "Tensor"]
"""From hidden states `[rows, hidden]` to raw scores `[rows]`, in fp32."""


def score_head(model: Any, readout: ReadOut, label_ids: Sequence[int]) -> ScoreHeadFunction:
    """The function of a read-out over a loaded network."""
    if isinstance(readout, TwoLayerHead):
        return _two_layers(model, readout)
    row = score_row(model, readout, label_ids)

    def scores(hidden: Tensor) -> Tensor:
        # the last bits of a matrix product would depend on the number of rows
        product: Tensor = (hidden.float() * row).sum(-1)
        return product

    return scores


def _two_layers(model: Any, head: TwoLayerHead) -> ScoreHeadFunction:
    """The function of a network's own head of two layers, each in fp32."""
    import torch

    first, first_bias = _layer(model, head.first)
    second, second_bias = _layer(model, head.second)

    def scores(hidden: Tensor) -> Tensor:
        # one row at a time: the last bits of a matrix product would depend on the number of rows
        inner = [(first.mv(row) + first_bias).relu() for row in hidden.float().unbind()]
        stacked: Tensor = torch.stack(inner)
        return (stacked * second).sum(-1) + second_bias

    return scores


def _layer(model: Any, name: str) -> tuple[Tensor, Tensor]:
    """A linear layer's weight and bias in fp32."""
    layer = model.get_submodule(name)
    return layer.weight.detach().float(), layer.bias.detach().float()
