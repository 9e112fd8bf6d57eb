"""The row of weights whose product with the last hidden state is the raw score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model_store.families.readout import ReadOut, ScoreHead, TwoLayerHead

if TYPE_CHECKING:
    from torch import Tensor


def score_row(model: Any, readout: ReadOut, label_ids: Sequence[int]) -> Tensor:
    """The row of a read-out in fp32, `[hidden]`: `hidden @ row` is a pair's raw score.

    `model` is a loaded network; `label_ids` are the vocabulary ids of the read-out's labels. Raises
    `ValueError` for a read-out that is no row.
    """
    if isinstance(readout, TwoLayerHead):
        raise ValueError(f"a {readout.name} is no row of weights")
    if isinstance(readout, ScoreHead):
        rows = model.get_parameter(readout.tensor)
    else:
        rows = model.get_output_embeddings().weight[list(label_ids)]
    row: Tensor = readout.combine(rows.float())
    return row
